//! The public keys of a JWKS document (RFC 7517). Keys that are not for signatures, or of an unsupported type, are
//! ignored. Pure.

use anyhow::{Context, bail};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Maximum number of keys that are read; a document has a few.
const KEYS: usize = 64;

/// Keys, each for one algorithm.
#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// The keys that a token was verified with.
pub(super) enum VerifiedToken {
    Keys(KeySet),
    Secret(DecodingKey),
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// The document. Keys are parsed one by one, so that an unknown type does not hide the others.
#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a document.
    pub(super) fn read(json: &[u8]) -> anyhow::Result<KeySet> {
        let document: Document = serde_json::from_slice(json).context("the document is not a JWKS")?;
        let keys: Vec<Key> = document
            .keys
            .into_iter()
            .take(KEYS)
            .filter_map(|key| Key::read(&serde_json::from_value(key).ok()?))
            .collect();
        if keys.is_empty() {
            bail!("the JWKS contains no signing key for RS256, ES256 or EdDSA");
        }
        Ok(KeySet { keys })
    }

    /// The key with this id for this algorithm. A token without an id may use the only key there is.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Option<&DecodingKey> {
        let mut fit = self
            .keys
            .iter()
            .filter(|key| key.algorithm == algorithm && (id.is_none() || key.id.as_deref() == id));
        let first = fit.next()?;
        (id.is_some() || fit.next().is_none()).then_some(&first.key)
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }
}

impl Key {
    fn read(jwk: &Jwk) -> Option<Key> {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
            && common
                .key_operations
                .as_ref()
                .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
            // Symmetric keys are ignored: the document is public.
            _ => return None,
        };
        let named =
            common.key_algorithm.is_none_or(|named| Algorithm::try_from(named).ok() == Some(algorithm));
        if !signs || !named {
            return None;
        }
        Some(Key { id: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(jwk).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn ec(more: Value) -> Value {
        let mut key = json!({"kty": "EC", "crv": "P-256", "x": X, "y": Y});
        key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key
    }

    fn read(keys: &[Value]) -> anyhow::Result<KeySet> {
        KeySet::read(json!({"keys": keys}).to_string().as_bytes())
    }

    #[test]
    fn keys_are_found_by_id_and_algorithm_and_without_an_id_only_where_there_is_one() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": X, "kid": "b", "use": "sig", "alg": "EdDSA"});
        let keys = read(&[ec(json!({"kid": "a", "alg": "ES256"})), ed]).unwrap();
        assert!(keys.find(Some("a"), Algorithm::ES256).is_some());
        assert!(keys.find(Some("b"), Algorithm::EdDSA).is_some());
        assert!(keys.find(None, Algorithm::ES256).is_some());
        for (id, algorithm) in [
            (Some("a"), Algorithm::EdDSA),
            (Some("a"), Algorithm::HS256),
            (Some("c"), Algorithm::ES256),
            (None, Algorithm::RS256),
        ] {
            assert!(keys.find(id, algorithm).is_none(), "{id:?} {algorithm:?}");
        }
        let two = read(&[ec(json!({"kid": "a"})), ec(json!({"kid": "b"}))]).unwrap();
        assert!(
            two.find(None, Algorithm::ES256).is_none() && two.find(Some("b"), Algorithm::ES256).is_some()
        );
    }

    #[test]
    fn what_is_not_for_signatures_or_not_known_is_left_out_and_hides_nothing() {
        let others = [
            ec(json!({"use": "enc"})),
            ec(json!({"key_ops": ["sign"]})),
            ec(json!({"alg": "RS256"})),
            ec(json!({"crv": "P-384"})),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
            json!({"kty": "RSA", "n": "!", "e": "AQAB"}),
            json!(7),
        ];
        assert!(read(&others).is_err());
        let mut all = others.to_vec();
        all.push(ec(json!({"kid": "a"})));
        assert_eq!(read(&all).unwrap().len(), 1);
        for nonsense in [&b""[..], b"[]", b"{}", b"\xff", br#"{"keys": 7}"#] {
            assert!(KeySet::read(nonsense).is_err());
        }
    }
}
