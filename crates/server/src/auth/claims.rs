//! The claims of a token, apart from its signature and validity times. An invalid claim is an error and is not treated
//! as missing, which could grant more access than intended. Pure.

use bridge::Tenancy;
use catalog::Catalog;
use serde_json::{Map, Value};
use wire::text::is_tenant;

use super::list::ALL;
use super::{AuthError, Scopes};

/// The configured names of claims.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) scopes: String,
    pub(super) customer: String,
}

/// The claims of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) subject: String,
    pub(super) scopes: Scopes,
    pub(super) customer: Tenancy,
    /// Unix time, in seconds.
    pub(super) expires: u64,
}

impl Claims {
    /// Reads the claims of a token whose `exp` is valid.
    pub(super) fn read(
        catalog: &Catalog,
        token: &Map<String, Value>,
        names: &Names,
    ) -> Result<Claims, AuthError> {
        let subject = token.get("sub").and_then(Value::as_str).ok_or(AuthError::Claims)?.to_owned();
        let expires = token.get("exp").and_then(seconds).ok_or(AuthError::Claims)?;
        let scopes = match token.get(&names.scopes) {
            None => Scopes::default(),
            Some(Value::String(text)) => Scopes::of_token(catalog, text.split(' ')),
            Some(Value::Array(list)) => {
                let list: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                Scopes::of_token(catalog, list.ok_or(AuthError::Claims)?)
            }
            Some(_) => return Err(AuthError::Claims),
        };
        let customer = token.get(&names.customer).map(customer).transpose()?.unwrap_or_default();
        Ok(Claims { subject, scopes, customer, expires })
    }
}

/// A customer id, which has to be a tenant's name, or `["*"]` for all: issuers take names from people, but no arrays. A
/// customer `*` would pass for all where names are compared.
fn customer(claim: &Value) -> Result<Tenancy, AuthError> {
    match claim {
        Value::String(text) if is_tenant(text) && text != ALL => Ok(Tenancy::One(text.as_str().into())),
        Value::Array(list) if *list == [ALL] => Ok(Tenancy::All),
        _ => Err(AuthError::Claims),
    }
}

/// A NumericDate, without its fraction.
fn seconds(date: &Value) -> Option<u64> {
    date.as_u64().or_else(|| date.as_f64().filter(|date| *date >= 0.0).map(|date| date as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: Value) -> Result<Claims, AuthError> {
        let mut token = json!({"sub": "ann", "exp": 7});
        token.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let names = Names { scopes: "scope".to_owned(), customer: "customer_id".to_owned() };
        Claims::read(&crate::tests::contract(), token.as_object().unwrap(), &names)
    }

    #[test]
    fn scopes_are_a_text_or_a_list_and_those_of_others_grant_nothing() {
        for scope in [json!("openid orders.read x"), json!(["openid", "orders.read"])] {
            let claims = read(json!({"scope": scope})).unwrap();
            assert!(claims.scopes.have("orders.read") && !claims.scopes.have("openid"));
            assert!(!claims.scopes.have("orders.create"));
        }
        assert_eq!(read(json!({})).unwrap().scopes, Scopes::default());
    }

    #[test]
    fn a_claim_that_makes_no_sense_is_no_missing_one() {
        assert_eq!(read(json!({})).unwrap().customer, Tenancy::Unnamed);
        assert_eq!(read(json!({"customer_id": ["*"]})).unwrap().customer, Tenancy::All);
        assert_eq!(read(json!({"customer_id": "Zoë"})).unwrap().customer.one(), Some("Zoë"));
        let bad = [
            json!(7),
            json!(""),
            json!(" "),
            json!(null),
            json!(["ann"]),
            json!(["*", "ann"]),
            json!([]),
            json!("*"),
            json!(true),
            json!("a\nb"),
            json!("x".repeat(129)),
        ];
        for customer in bad {
            assert_eq!(read(json!({"customer_id": customer})), Err(AuthError::Claims), "{customer}");
        }
        for scope in [json!(7), json!(null), json!(["orders.read", 7])] {
            assert_eq!(read(json!({"scope": scope})), Err(AuthError::Claims), "{scope}");
        }
        for changed in [json!({"sub": null}), json!({"sub": 7}), json!({"exp": "soon"}), json!({"exp": -1})] {
            assert_eq!(read(changed.clone()), Err(AuthError::Claims), "{changed}");
        }
        assert_eq!(read(json!({"exp": 7.9})).unwrap().expires, 7);
    }
}
