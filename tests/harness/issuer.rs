//! An issuer of bearer tokens, valid and invalid ones. Keys are generated at test time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{digest, hmac};
use serde_json::{Value, json};
use server::config::access::{Access, Place};
use tempfile::TempDir;

pub const ISSUER: &str = "https://id.example.com/";
pub const AUDIENCE: &str = "orders";
/// All scopes.
pub const ALL: &str =
    "orders.create orders.read orders.update inventory.check inventory.read inventory.adjust";

/// The issuer, with a folder for its public keys.
pub struct Issuer {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
    secret: String,
    pub folder: TempDir,
}

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Es256,
    EdDsa,
    /// With the shared secret.
    Hs256,
    /// Unsigned, with this algorithm name.
    None(&'static str),
    /// With the public key as an HMAC secret.
    Confused,
}

/// What is signed: the header except the algorithm, and the claims.
pub struct Token {
    pub sign: Sign,
    pub header: Value,
    pub claims: Value,
}

impl Issuer {
    pub fn new() -> Issuer {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let issuer = Issuer {
            ec: EcdsaKeyPair::from_pkcs8(algorithm, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            secret: encode(digest::digest(&digest::SHA256, ed.as_ref()).as_ref()),
            folder: tempfile::tempdir().unwrap(),
        };
        issuer.publish(&issuer.jwks());
        std::fs::write(issuer.folder.path().join("secret"), format!("{}\n", issuer.secret)).unwrap();
        issuer
    }

    /// A gateway's configuration for its tokens.
    pub fn access(&self) -> Access {
        Access {
            jwt_jwks: Some(Place::File(self.folder.path().join("jwks.json"))),
            jwt_secret_file: Some(self.folder.path().join("secret")),
            jwt_issuer: Some(ISSUER.to_owned()),
            jwt_audience: vec![AUDIENCE.to_owned(), "others".to_owned()],
            ..Access::default()
        }
    }

    /// Its public keys.
    pub fn jwks(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "ec", "use": "sig", "x": encode(x), "y": encode(y)},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "alg": "EdDSA", "x": encode(self.ed.public_key().as_ref())},
        ]})
    }

    /// Replaces the file of public keys.
    pub fn publish(&self, jwks: &Value) {
        let (new, old) = (self.folder.path().join("new"), self.folder.path().join("jwks.json"));
        std::fs::write(&new, jwks.to_string()).unwrap();
        std::fs::rename(new, old).unwrap();
    }

    /// A valid token of "ann" with every scope, after `change`.
    pub fn token(&self, change: impl FnOnce(&mut Token)) -> String {
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "scope": ALL, "exp": now() + 600, "iat": now(),
        });
        let mut token = Token { sign: Sign::Es256, header: json!({"typ": "JWT", "kid": "ec"}), claims };
        change(&mut token);
        self.signed(token)
    }

    /// A valid token of "ann" with additional claims.
    pub fn with(&self, more: Value) -> String {
        self.token(|token| token.claim(more))
    }

    fn signed(&self, mut token: Token) -> String {
        let name = match token.sign {
            Sign::Es256 => "ES256",
            Sign::EdDsa => "EdDSA",
            Sign::Hs256 | Sign::Confused => "HS256",
            Sign::None(name) => name,
        };
        token.header["alg"] = name.into();
        let parts = [token.header, token.claims].map(|part| encode(part.to_string().as_bytes()));
        let message = parts.join(".");
        let mac = |secret: &[u8]| {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes()).as_ref().to_vec()
        };
        let signature = match token.sign {
            Sign::Es256 => self.ec.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
            Sign::EdDsa => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            Sign::Hs256 => mac(self.secret.as_bytes()),
            Sign::Confused => mac(self.ec.public_key().as_ref()),
            Sign::None(_) => Vec::new(),
        };
        format!("{message}.{}", encode(&signature))
    }
}

impl Token {
    /// Sets claims.
    pub fn claim(&mut self, more: Value) {
        self.claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }

    /// Uses another of the issuer's keys.
    pub fn sign(&mut self, sign: Sign, kid: &str) {
        self.sign = sign;
        self.header["kid"] = kid.into();
    }
}

/// Unix time in seconds.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).unwrap()
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
