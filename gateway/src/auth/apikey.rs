//! API keys. A key is its name and 32 random bytes; the file has its name, its hash, its scopes, and perhaps the one
//! customer it is for. A hash that is slow on purpose is for passwords: nobody guesses 32 bytes.

use std::collections::HashMap;
use std::str;
use std::sync::Arc;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom, SystemRandom};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::list::lines;
use super::quota::Accounts;
use super::{Caller, Scopes, Unknown, principal};
use crate::reload::Contents;

/// Random bytes of a key.
const RANDOM: usize = 32;
/// Characters of a name.
const NAME: usize = 64;

/// All keys. A name may have several, so that one can be replaced by another without a gap.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<Box<str>, Vec<Key>>);

#[derive(Debug)]
struct Key {
    hash: [u8; digest::SHA256_OUTPUT_LEN],
    scopes: Scopes,
    customer: Option<Box<str>>,
}

/// A key that was just made.
pub struct New {
    /// The key itself: nobody can make it out again.
    pub key: Zeroizing<String>,
    /// The line for the file.
    pub line: String,
}

/// Makes a key.
pub fn new(name: &str, scopes: &[String], customer: Option<&str>) -> anyhow::Result<New> {
    check(name)?;
    let scopes = Scopes::of_list(scopes.iter().map(String::as_str))?;
    let mut random = Zeroizing::new([0; RANDOM]);
    SystemRandom::new().fill(&mut *random).ok().context("the system has no random bytes")?;
    let key = Zeroizing::new(format!("{name}.{}", URL_SAFE_NO_PAD.encode(*random)));
    let hash: String = hash(&key).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut line = format!("{name} {hash} {scopes}");
    if let Some(customer) = customer {
        line.extend([" ", customer]);
    }
    Keys::read(&[Zeroizing::new(line.clone().into_bytes())])?;
    Ok(New { key, line })
}

impl Keys {
    /// Reads the file: lines of name, hash in hex, scopes with commas between them, and a customer.
    pub(crate) fn read(contents: &[Contents]) -> anyhow::Result<Keys> {
        let mut keys = Keys::default();
        for line in lines(contents)? {
            let (number, [name, hash, scopes], customer) = line?;
            let key = || -> anyhow::Result<Key> {
                check(name)?;
                let scopes = Scopes::of_list(scopes.split(','))?;
                Ok(Key { hash: unhex(hash).context("the hash is not 64 hex digits")?, scopes, customer })
            };
            keys.0.entry(name.into()).or_default().push(key().with_context(|| format!("line {number}"))?);
        }
        Ok(keys)
    }

    /// Whose key this is.
    pub(super) fn caller(&self, key: &str, accounts: &Accounts) -> Result<Arc<Caller>, Unknown> {
        let (name, _) = key.rsplit_once('.').ok_or(Unknown::ApiKey)?;
        let hash = hash(key);
        let mut fit = self.0.get(name).into_iter().flatten().filter(|key| bool::from(key.hash.ct_eq(&hash)));
        let found = fit.next().ok_or(Unknown::ApiKey)?;
        let principal = principal("key", name).ok_or(Unknown::ApiKey)?;
        Ok(Arc::new(Caller {
            account: accounts.of(&principal),
            principal,
            customer: found.customer.clone(),
            scopes: found.scopes.clone(),
        }))
    }
}

fn check(name: &str) -> anyhow::Result<()> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    if !(1..=NAME).contains(&name.len()) || !name.bytes().all(plain) {
        bail!("a key's name is 1 to {NAME} of [A-Za-z0-9_-]");
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

    fn read(text: &str) -> anyhow::Result<Keys> {
        Keys::read(&[Zeroizing::new(text.as_bytes().to_vec())])
    }

    fn made(name: &str, customer: Option<&str>) -> New {
        new(name, &["orders.read".to_owned(), "orders.create".to_owned()], customer).unwrap()
    }

    #[tokio::test]
    async fn a_key_is_known_by_its_line_and_only_whole() {
        let (old, next, bound) = (made("shop", None), made("shop", None), made("ann-1", Some("Ann of York")));
        let file = format!("# keys\n\n{}\n{}\r\n\t{}  ", old.line, next.line, bound.line);
        let (keys, accounts) = (read(&file).unwrap(), Accounts::new(9, 0));
        for key in [&old.key, &next.key] {
            let caller = keys.caller(key, &accounts).unwrap();
            assert_eq!((&*caller.principal, caller.customer.as_deref()), ("key:shop", None));
            assert!(caller.scopes.have("orders.create") && !caller.scopes.have("orders.update"));
        }
        assert_eq!(keys.caller(&bound.key, &accounts).unwrap().customer.as_deref(), Some("Ann of York"));
        let short = &old.key[..old.key.len() - 1];
        let renamed = old.key.replace("shop", "ann-1");
        for wrong in
            ["", ".", "shop", "shop.", short, &renamed, &made("shop", None).key, &format!("{}x", *old.key)]
        {
            assert_eq!(keys.caller(wrong, &accounts).unwrap_err(), Unknown::ApiKey, "{wrong}");
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
            let error = format!("{:#}", read(&format!("# first\n{bad}\n")).unwrap_err());
            assert!(error.contains("line 2"), "{bad}: {error}");
        }
        assert!(new("a b", &["orders.read".to_owned()], None).is_err());
        assert!(new("a", &["orders.rea".to_owned()], None).is_err());
        assert!(new("a", &["orders.read".to_owned()], Some("a\nb")).is_err());
    }
}
