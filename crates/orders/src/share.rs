//! The limits of OrderService that callers share.

use bridge::share::ShareKind;

/// CreateOrder.
pub(crate) const CREATE: ShareKind = ShareKind::service(0);
/// GetOrder.
pub(crate) const GET: ShareKind = ShareKind::service(1);
/// UpdateOrderStatus.
pub(crate) const UPDATE: ShareKind = ShareKind::service(2);
/// ListOrders.
pub(crate) const LIST: ShareKind = ShareKind::service(3).lasting();
/// WatchOrders.
pub(crate) const WATCHES: ShareKind = ShareKind::service(4).lasting();
/// Watches that replay the history.
pub(crate) const REPLAYS: ShareKind = ShareKind::service(5).lasting();
