//! API keys. A key is a name and 32 random bytes; the file has its name, hash and scopes, and optionally the one
//! customer that it is restricted to, or `*`. SHA-256 is enough: slow hashes are for passwords, and 32 random bytes cannot be
//! guessed.

use std::collections::HashMap;
use std::str;
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bridge::Tenancy;
use catalog::Catalog;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::list;
use super::quota::Quotas;
use super::{AuthError, Caller, Scopes, principal};
use crate::reload::{Contents, Made};
use crate::served::Current;

/// Random bytes of a key.
const RANDOM: usize = 32;
/// Maximum length of a name.
const NAME: usize = 64;

/// All keys. A name may have several, so that a key can be rotated without a gap.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<Box<str>, Vec<Key>>);

#[derive(Debug)]
struct Key {
    /// The line in the file.
    line: usize,
    hash: [u8; digest::SHA256_OUTPUT_LEN],
    scopes: Scopes,
    customer: Tenancy,
}

/// A new key.
pub struct New {
    /// The key itself, which cannot be recovered later.
    pub key: Zeroizing<String>,
    /// The line for the file.
    pub line: String,
}

/// Creates a key, with some scopes of the catalog.
///
/// # Errors
/// If the name, a scope or the customer is invalid.
pub fn new(catalog: &Catalog, name: &str, scopes: &[String], customer: Option<&str>) -> anyhow::Result<New> {
    check(name)?;
    let scopes = Scopes::of_list(catalog, scopes.iter().map(String::as_str))?;
    let mut random = Zeroizing::new([0; RANDOM]);
    SystemRandom::new().fill(&mut *random).ok().context("the system has no random bytes")?;
    let key = Zeroizing::new(format!("{name}.{}", URL_SAFE_NO_PAD.encode(*random)));
    let hash: String = hash(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut line = format!("{name} {hash} {scopes}");
    if let Some(customer) = customer {
        line.extend([" ", customer]);
    }
    let read = Keys::read(catalog, &[Zeroizing::new(line.clone().into_bytes())])?;
    if let Some(fault) = read.faults.first() {
        bail!("{fault}");
    }
    Ok(New { key, line })
}

impl Keys {
    /// [`Keys::read`] with the scopes of what is served.
    pub(super) fn reader(
        current: &Current,
    ) -> impl Fn(&[Contents]) -> anyhow::Result<Made<Keys>> + Send + Sync + use<> {
        let current = current.clone();
        move |contents| Keys::read(current.look().catalog(), contents)
    }

    /// Reads the file: lines of name, hash in hex, comma-separated scopes or `-`, and a customer or `*`. A name is one caller, whose
    /// keys share its request ids and quota, so all its keys need the same customer.
    pub(crate) fn read(catalog: &Catalog, contents: &[Contents]) -> anyhow::Result<Made<Keys>> {
        list::read(contents, |keys: &mut Keys, (line, [name, hash, scopes], customer)| {
            check(name)?;
            let scopes = Scopes::of_list(catalog, scopes.split(','))?;
            let hash = unhex(hash).context("the hash is not 64 hex digits")?;
            let same = keys.0.entry(name.into()).or_default();
            if let Some(other) = same.iter().find(|other| other.customer != customer) {
                bail!(
                    "{name} has another customer in line {}; give this key a name of its own (`gateway keys new`)",
                    other.line
                );
            }
            same.push(Key { line, hash, scopes, customer });
            Ok(())
        })
    }

    /// The caller with this key.
    pub(super) fn caller(&self, key: &str, accounts: &Quotas) -> Result<Arc<Caller>, AuthError> {
        let (name, _) = key.rsplit_once('.').ok_or(AuthError::ApiKey)?;
        let hash = hash(key);
        let mut fit = self.0.get(name).into_iter().flatten().filter(|key| bool::from(key.hash.ct_eq(&hash)));
        let found = fit.next().ok_or(AuthError::ApiKey)?;
        let principal = principal("key", name).ok_or(AuthError::ApiKey)?;
        Ok(Arc::new(Caller {
            account: accounts.of(&principal),
            principal,
            tenant: found.customer.clone(),
            scopes: found.scopes.clone(),
        }))
    }
}

fn check(name: &str) -> anyhow::Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if !(1..=NAME).contains(&name.len()) || !name.bytes().all(plain) {
        bail!("the name of a key must be 1 to {NAME} characters of [A-Za-z0-9_-]");
    }
    Ok(())
}

fn hash(key: &str) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    hash
}

fn unhex(text: &str) -> Option<[u8; digest::SHA256_OUTPUT_LEN]> {
    let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
    if text.len() != 2 * bytes.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::contract;

    fn read(text: &str) -> anyhow::Result<Keys> {
        Ok(made_of(text)?.value)
    }

    fn made_of(text: &str) -> anyhow::Result<Made<Keys>> {
        Keys::read(&contract(), &[Zeroizing::new(text.as_bytes().to_vec())])
    }

    fn made(name: &str, customer: Option<&str>) -> New {
        new(&contract(), name, &["orders.read".to_owned(), "orders.create".to_owned()], customer).unwrap()
    }

    #[tokio::test]
    async fn a_key_is_known_by_its_line_and_only_whole() {
        let (old, next, bound) = (made("shop", None), made("shop", None), made("ann-1", Some("Ann of York")));
        let file = format!("# keys\n\n{}\n{}\r\n\t{}  ", old.line, next.line, bound.line);
        let (keys, accounts) = (read(&file).unwrap(), Quotas::new(9, 0));
        for key in [&old.key, &next.key] {
            let caller = keys.caller(key, &accounts).unwrap();
            assert_eq!((&*caller.principal, caller.tenant.one()), ("key:shop", None));
            assert!(caller.scopes.have("orders.create") && !caller.scopes.have("orders.update"));
        }
        assert_eq!(keys.caller(&bound.key, &accounts).unwrap().tenant.one(), Some("Ann of York"));
        let short = &old.key[..old.key.len() - 1];
        let renamed = old.key.replace("shop", "ann-1");
        for wrong in
            ["", ".", "shop", "shop.", short, &renamed, &made("shop", None).key, &format!("{}x", *old.key)]
        {
            assert_eq!(keys.caller(wrong, &accounts).unwrap_err(), AuthError::ApiKey, "{wrong}");
        }
        assert!(!file.contains(&**old.key) && !format!("{keys:?}").contains(&**old.key));
    }

    #[test]
    fn a_list_with_a_mistake_is_refused_with_its_line() {
        let line = made("shop", None).line;
        let hash = line.split(' ').nth(1).unwrap();
        let bad = [
            "shop".to_owned(),
            format!("shop {hash}"),
            format!("shop {}", &line[6..]),
            format!("shop {hash} orders.everything"),
            format!("shop {hash} orders.read,"),
            format!("a.b {hash} orders.read"),
            format!("shop {hash} orders.read {}", "x".repeat(129)),
        ];
        for bad in bad {
            let faults = made_of(&format!("# first\n{bad}\n")).unwrap().faults;
            assert!(faults.len() == 1 && faults[0].contains("line 2"), "{bad}: {faults:?}");
        }
        let open = new(&contract(), "open", &["-".to_owned()], None).unwrap();
        assert!(open.line.ends_with(" -") && made_of(&open.line).unwrap().faults.is_empty(), "no scope");
        assert!(new(&contract(), "a b", &["orders.read".to_owned()], None).is_err());
        assert!(new(&contract(), "a", &["orders.rea".to_owned()], None).is_err());
        assert!(new(&contract(), "a", &["orders.read".to_owned()], Some("a\nb")).is_err());
    }

    #[tokio::test]
    async fn a_bad_line_hides_no_other_and_is_named_without_its_words() {
        let (good, late) = (made("shop", None), made("late", None));
        let secret = late.key.rsplit('.').next().unwrap();
        let bad = [
            format!("till {secret} orders.read"),
            format!("till {} {secret}", "0".repeat(64)),
            secret.to_owned(),
        ];
        for bad in bad {
            let file = [bad.as_bytes(), b"\n\xff\xfe\n", good.line.as_bytes()].concat();
            let made = Keys::read(&contract(), &[Zeroizing::new(file)]).unwrap();
            assert!(made.value.caller(&good.key, &Quotas::new(9, 0)).is_ok());
            let faults = made.faults.join("\n");
            assert!(faults.contains("line 1") && faults.contains("line 2"), "{faults}");
            assert!(made.faults.len() == 2 && !faults.contains(secret), "{faults}");
        }
        assert!(made_of("nonsense\n").unwrap().empty && made_of("# nobody\n").unwrap().empty);
        assert!(made_of(&format!("{}\n\0", good.line)).is_err());
    }

    #[tokio::test]
    async fn one_name_is_one_customer() {
        let [one, two] = [Some("ann"), Some("bob")].map(|customer| made("shop", customer));
        let [none, all] = [None, Some("*")].map(|customer| made("shop", customer));
        let everywhere = made_of(&all.line).unwrap().value.caller(&all.key, &Quotas::new(9, 0)).unwrap();
        assert_eq!(everywhere.tenant, Tenancy::All, "it is marked so");
        for other in [&two, &none, &all] {
            let both = made_of(&format!("{}\n\n{}\n", one.line, other.line)).unwrap();
            let accounts = Quotas::new(9, 0);
            assert_eq!(both.value.caller(&one.key, &accounts).unwrap().tenant.one(), Some("ann"));
            assert!(both.value.caller(&other.key, &accounts).is_err());
            assert!(
                both.faults[0].contains("line 3") && both.faults[0].contains("line 1"),
                "{:?}",
                both.faults
            );
        }
    }
}
