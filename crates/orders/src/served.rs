//! The catalog of the compiled-in contract, with the codecs of its generated types. Must not know a connection.

use std::fmt;
use std::sync::{Arc, LazyLock};

use catalog::{Catalog, Codec, CodecError};
use contract::route::{self, ALL};

use bridge::{Limits, RouteStates};

static CONTRACT: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let typed = |builder: catalog::Builder<'static>, route: &&'static route::Route| {
        builder.codec(route.path, Arc::new(Generated(route)))
    };
    let builder = ALL.iter().fold(Catalog::builder(contract::DESCRIPTORS), typed);
    builder.trusted().build().expect("the build has checked these protos")
});

/// The catalog of the compiled-in contract.
pub fn contract() -> Arc<Catalog> {
    CONTRACT.clone()
}

/// States of all its routes with the default limits, for the bridge of a command.
pub(crate) fn states() -> Arc<RouteStates> {
    let catalog = contract();
    Arc::new(RouteStates::new(catalog.clone(), catalog.routes(), &Limits::default()))
}

/// The codec of generated types.
struct Generated(&'static route::Route);

impl Codec for Generated {
    fn request(&self, protobuf: &[u8]) -> Result<Vec<u8>, CodecError> {
        (self.0.request)(protobuf).map_err(|error| CodecError::new(&error.path, &error.why))
    }

    fn reply(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        (self.0.reply)(payload).map_err(|error| CodecError::new(&error.path, &error.why))
    }

    fn repeatable(&self, request: &[u8]) -> bool {
        (self.0.repeats)(request)
    }
}

impl fmt::Debug for Generated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Generated").field(&self.0.path).finish()
    }
}
