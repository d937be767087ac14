//! Whose orders a caller may see: all, or those of the one customer that the caller's credential names. An order of
//! somebody else is, to such a caller, no order. Pure.

use contract::{Delivered, Failure, Reason};
use uuid::Uuid;

use super::record::Order;
use super::request::Whose;
use crate::call::Call;

/// Whether the call may be about this customer by name.
pub(super) fn check(customer: &str, call: &Call) -> Result<(), Failure> {
    match call.customer.as_deref() {
        Some(own) if own != customer => {
            let message =
                "the caller may see and place orders of one customer alone, and this is another one";
            Err(Failure::new(Reason::PermissionDenied, message).delivered(Delivered::No))
        }
        _ => Ok(()),
    }
}

/// The customer to filter by: the caller's own where none is asked for.
pub(super) fn narrow(asked: Option<Box<str>>, call: &Call) -> Result<Option<Box<str>>, Failure> {
    if let Some(customer) = &asked {
        check(customer, call)?;
    }
    Ok(asked.or_else(|| call.customer.clone()))
}

/// The orders to follow. One by its id is not checked here: its record says whose it is.
pub(super) fn narrow_follow(whose: Whose, call: &Call) -> Result<Whose, Failure> {
    let asked = match whose {
        Whose::Order(_) => return Ok(whose),
        Whose::Customer(customer) => Some(customer),
        Whose::All => None,
    };
    Ok(narrow(asked, call)?.map_or(Whose::All, Whose::Customer))
}

/// The order, if there is one for this caller.
pub(super) fn visible(order: Option<Order>, id: Uuid, call: &Call) -> Result<Order, Failure> {
    order
        .filter(|order| call.customer.as_ref().is_none_or(|own| *own == order.body.customer))
        .ok_or_else(|| Failure::not_found("orders.v1.Order", &id.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn call(customer: Option<&str>) -> Call {
        Call { customer: customer.map(Into::into), ..Call::until(Instant::now()) }
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
