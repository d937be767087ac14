//! Authentication by client certificate, which TLS has verified: a list maps names to scopes, or all valid certificates
//! have the same scopes.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;

use bridge::Tenancy;
use catalog::Catalog;

use super::list;
use super::quota::Quotas;
use super::{AuthError, Caller, Scopes, Upkeep, principal};
use crate::config::access::Access as Config;
use crate::fresh::Kept;
use crate::reload::{Contents, Made, Reload};
use crate::served::Current;
use anyhow::{Context, bail};

/// Maximum number of names of a certificate that are considered.
const NAMES: usize = 16;

/// The identity in a certificate: its subject alternative names, URIs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PeerIdentity(Box<[Box<str>]>);

/// The access rights of clients.
pub(super) struct Clients {
    list: Option<Kept<List>>,
    /// The scopes of clients that are not on the list.
    scopes: Option<Scopes>,
}

#[derive(Debug, Default)]
struct List(HashMap<Box<str>, Entry>);

#[derive(Debug)]
struct Entry {
    scopes: Scopes,
    customer: Tenancy,
}

impl PeerIdentity {
    /// An identity with these names.
    pub(crate) fn new(names: impl IntoIterator<Item = String>) -> PeerIdentity {
        // A wildcard name identifies no client.
        PeerIdentity(
            names.into_iter().filter(|name| !name.contains('*')).take(NAMES).map(Into::into).collect(),
        )
    }
}

impl Clients {
    /// Reads the list for the first time. None if certificates do not authenticate callers.
    pub(super) fn open(
        config: &Config,
        current: &Current,
        upkeep: &mut Upkeep,
    ) -> anyhow::Result<Option<Clients>> {
        let list = match &config.tls_clients {
            Some(path) => {
                let served = current.clone();
                let read = move |contents: &[Contents]| List::read(served.look().catalog(), contents);
                let list = Reload::open("client names (GW_TLS_CLIENTS)", vec![path.clone()], read)?;
                let list = list.within("tls_clients", config.max_stale()).depending_on(current);
                Some(upkeep.guard(list))
            }
            None => None,
        };
        let names = &config.tls_client_scopes;
        let scopes = match names.is_empty() {
            true => None,
            false => {
                let scopes = Scopes::of_list(current.look().catalog(), names.iter().map(String::as_str));
                Some(scopes.context("GW_TLS_CLIENT_SCOPES")?)
            }
        };
        Ok((list.is_some() || scopes.is_some()).then_some(Clients { list, scopes }))
    }

    /// The caller with this identity: by the first name that is on the list, otherwise by its first name.
    pub(super) fn caller(
        &self,
        peer_identity: &PeerIdentity,
        accounts: &Quotas,
    ) -> Result<Arc<Caller>, AuthError> {
        let list = self.list.as_ref().map(Kept::get).transpose()?;
        let listed = list
            .as_ref()
            .and_then(|list| peer_identity.0.iter().find_map(|name| Some((name, list.0.get(name)?))));
        let (name, scopes, customer) = match (listed, &self.scopes, peer_identity.0.first()) {
            (Some((name, entry)), ..) => (name, &entry.scopes, entry.customer.clone()),
            (None, Some(scopes), Some(name)) => (name, scopes, Tenancy::Unnamed),
            _ => return Err(AuthError::Certificate),
        };
        let principal = principal("cert", name).ok_or(AuthError::Certificate)?;
        Ok(Arc::new(Caller {
            account: accounts.of(&principal),
            principal,
            tenant: customer,
            scopes: scopes.clone(),
        }))
    }
}

impl List {
    /// Reads the file: lines of name, comma-separated scopes or `-`, and a customer or `*`.
    fn read(catalog: &Catalog, contents: &[Contents]) -> anyhow::Result<Made<List>> {
        list::read(contents, |list: &mut List, (_, [name, scopes], customer)| {
            let scopes = Scopes::of_list(catalog, scopes.split(','))?;
            match list.0.entry(name.into()) {
                Slot::Occupied(_) => bail!("{name} is listed twice"),
                Slot::Vacant(slot) => drop(slot.insert(Entry { scopes, customer })),
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::Fresh;
    use crate::tests::contract;

    fn clients(list: Option<&str>, scopes: &str) -> Clients {
        let list = list.map(|text| {
            let list = List::read(&contract(), &[Contents::new(text.as_bytes().to_vec())]).unwrap().value;
            let latest = tokio::sync::watch::Sender::new(Arc::new(list)).subscribe();
            Kept::new(latest, Fresh::new("test", None))
        });
        let scopes = (!scopes.is_empty()).then(|| Scopes::of_list(&contract(), scopes.split(',')).unwrap());
        Clients { list, scopes }
    }

    fn peer_identity(names: &[&str]) -> PeerIdentity {
        PeerIdentity::new(names.iter().map(|name| (*name).to_owned()))
    }

    #[tokio::test]
    async fn a_listed_name_goes_before_the_first_and_one_that_nobody_lists_has_the_common_scopes() {
        let list = Some("spiffe://here/shop orders.create\nann.example orders.read Ann of York\n");
        let accounts = Quotas::new(9, 0);
        let both = clients(list, "inventory.read");
        let ann = both.caller(&peer_identity(&["spiffe://here/x", "ann.example"]), &accounts).unwrap();
        assert_eq!((&*ann.principal, ann.tenant.one()), ("cert:ann.example", Some("Ann of York")));
        assert!(ann.scopes.have("orders.read") && !ann.scopes.have("inventory.read"));
        let other = both.caller(&peer_identity(&["spiffe://here/x", "x.example"]), &accounts).unwrap();
        assert_eq!((&*other.principal, &other.tenant), ("cert:spiffe://here/x", &Tenancy::Unnamed));
        assert!(other.scopes.have("inventory.read"));
        let listed = clients(list, "");
        for nobody in [&["x.example"][..], &[], &["*.example"]] {
            assert_eq!(listed.caller(&peer_identity(nobody), &accounts).unwrap_err(), AuthError::Certificate);
        }
        assert!(both.caller(&peer_identity(&["*.example"]), &accounts).is_err());
    }

    #[test]
    fn a_name_is_listed_once() {
        let twice = "a orders.read\na orders.create\n";
        let made = List::read(&contract(), &[Contents::new(twice.as_bytes().to_vec())]).unwrap();
        assert!(made.faults.len() == 1 && made.faults[0].contains("line 2"), "{:?}", made.faults);
        assert!(made.value.0["a"].scopes.have("orders.read"));
    }
}
