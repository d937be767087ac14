//! The catalog of the compiled-in contract. Must not know a connection.

use std::sync::{Arc, LazyLock};

use bridge::{Limits, RouteStates};
use catalog::Catalog;

static CONTRACT: LazyLock<Arc<Catalog>> = LazyLock::new(|| {
    let builder = Catalog::builder(contract::DESCRIPTORS).trusted();
    builder.build().expect("the build has checked these protos")
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
