//! Tenancy: a caller sees all orders, or those of the one customer that its credential names. For such a caller the
//! orders of other customers do not exist. Pure.

use order_streams::order::Order;
use uuid::Uuid;
use wire::{Delivered, Failure, Reason};

use super::request::Whose;
use bridge::call::CallContext;

/// Refuses a call that names a customer other than the caller's own.
pub(crate) fn check(customer: &str, call: &CallContext) -> Result<(), Failure> {
    match call.tenant.one() {
        Some(own) if own != customer => {
            let message =
                "the caller's credential is limited to one customer's orders, and the request names another";
            Err(Failure::new(Reason::PermissionDenied, message).delivered(Delivered::No))
        }
        _ => Ok(()),
    }
}

/// The customer to filter by: the caller's own if the request names none.
pub(crate) fn narrow(asked: Option<Box<str>>, call: &CallContext) -> Result<Option<Box<str>>, Failure> {
    if let Some(customer) = &asked {
        check(customer, call)?;
    }
    Ok(asked.or_else(|| call.tenant.one().map(Into::into)))
}

/// The orders to follow. A single order is not checked here: only its record names its customer.
pub(crate) fn narrow_follow(whose: Whose, call: &CallContext) -> Result<Whose, Failure> {
    let asked = match whose {
        Whose::Order(_) => return Ok(whose),
        Whose::Customer(customer) => Some(customer),
        Whose::All => None,
    };
    Ok(narrow(asked, call)?.map_or(Whose::All, Whose::Customer))
}

/// The order, if it exists and the caller may see it.
pub(crate) fn visible(order: Option<Order>, id: Uuid, call: &CallContext) -> Result<Order, Failure> {
    order
        .filter(|order| call.tenant.one().is_none_or(|own| *own == *order.body.customer))
        .ok_or_else(|| Failure::not_found("orders.v1.Order", &id.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use bridge::Tenancy;

    fn call(customer: Option<&str>) -> CallContext {
        CallContext {
            tenant: customer.map_or(Tenancy::All, |name| Tenancy::One(name.into())),
            ..CallContext::until(Instant::now())
        }
    }

    #[test]
    fn a_caller_for_one_customer_asks_for_that_one_or_is_narrowed_to_it() {
        let (free, ann) = (call(None), call(Some("ann")));
        let own = || Whose::Customer("ann".into());
        assert_eq!(narrow(None, &free), Ok(None));
        assert_eq!(narrow(Some("bob".into()), &free), Ok(Some("bob".into())));
        assert_eq!(narrow(None, &ann), Ok(Some("ann".into())));
        assert_eq!(narrow(Some("ann".into()), &ann), Ok(Some("ann".into())));
        assert!(narrow(Some("Ann".into()), &ann).unwrap_err().is(Reason::PermissionDenied));
        assert_eq!(narrow_follow(Whose::All, &free), Ok(Whose::All));
        assert_eq!(narrow_follow(Whose::All, &ann), Ok(own()));
        assert_eq!(narrow_follow(own(), &ann), Ok(own()));
        assert!(narrow_follow(Whose::Customer("bob".into()), &ann).is_err());
    }
}
