//! What the tests of this crate share.

use std::sync::{Arc, LazyLock};

use catalog::Catalog;

/// Some catalog.
pub(crate) fn contract() -> Arc<Catalog> {
    static CONTRACT: LazyLock<Arc<Catalog>> = LazyLock::new(|| Catalog::new(contract::DESCRIPTORS).unwrap());
    CONTRACT.clone()
}
