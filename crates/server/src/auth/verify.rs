//! Verification of token signatures with ring: the token library needs a crypto provider, and its own ones would add a
//! second implementation of everything (one of them has an RSA with a timing side channel). Must not sign, and must not
//! decide which algorithm or key is right.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result, new_error};
use jsonwebtoken::signature::{Error, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use ring::{error, hmac};

/// Installs this provider. Has to be called before any token is decoded.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    static RING: CryptoProvider = CryptoProvider {
        signer_factory: signer,
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(),
    };
    // An error means that other code in this process, such as a test, has installed a provider already.
    ONCE.call_once(|| {
        let _ = RING.install_default();
    });
}

/// A verification key for one algorithm.
struct Check {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Hmac(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    let unfit = || new_error(ErrorKind::InvalidKeyFormat);
    if key.family() != algorithm.family() {
        return Err(unfit());
    }
    let key = match (algorithm, key.kind()) {
        (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
            Key::Hmac(hmac::Key::new(hmac::HMAC_SHA256, secret))
        }
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
            Key::Public(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.clone()))
        }
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => {
            Key::Public(UnparsedPublicKey::new(&ED25519, point.clone()))
        }
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Key::Rsa { n: n.clone(), e: e.clone() }
        }
        _ => return Err(unfit()),
    };
    Ok(Box::new(Check { algorithm: *algorithm, key }))
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    Err(new_error(ErrorKind::UnsupportedAlgorithm))
}

impl Verifier<Vec<u8>> for Check {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let checked = match &self.key {
            Key::Hmac(key) => hmac::verify(key, message, signature),
            Key::Public(key) => key.verify(message, signature),
            Key::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
        };
        checked.map_err(|error::Unspecified| Error::new())
    }
}

impl JwtVerifier for Check {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::crypto::verify;

    use super::*;

    // RFC 7515, A.1 to A.3, and RFC 8037, A.4.
    const HS256: [&str; 3] = [
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    ];
    const RS256: [&str; 3] = [
        "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
    ];
    const ES256: [&str; 4] = [
        "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
    ];
    const EDDSA: [&str; 3] = [
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ];

    fn keys() -> [(Algorithm, DecodingKey, &'static str, &'static str); 4] {
        let secret = HS256[0].replace('-', "+").replace('_', "/") + "==";
        let secret = DecodingKey::from_base64_secret(&secret).unwrap();
        let rsa = DecodingKey::from_rsa_components(RS256[0], "AQAB").unwrap();
        let ec = DecodingKey::from_ec_components(ES256[0], ES256[1]).unwrap();
        let ed = DecodingKey::from_ed_components(EDDSA[0]).unwrap();
        [
            (Algorithm::HS256, secret, HS256[1], HS256[2]),
            (Algorithm::RS256, rsa, RS256[1], RS256[2]),
            (Algorithm::ES256, ec, ES256[2], ES256[3]),
            (Algorithm::EdDSA, ed, EDDSA[1], EDDSA[2]),
        ]
    }

    #[test]
    fn the_examples_of_the_standards_are_right_and_wrong_when_a_letter_changes() {
        install();
        for (algorithm, key, message, signature) in keys() {
            assert_eq!(verify(signature, message.as_bytes(), &key, algorithm), Ok(true), "{algorithm:?}");
            let other = message.replace('e', "f");
            assert_eq!(verify(signature, other.as_bytes(), &key, algorithm), Ok(false), "{algorithm:?}");
            assert_eq!(verify("", message.as_bytes(), &key, algorithm), Ok(false), "{algorithm:?}");
        }
    }

    #[test]
    fn a_key_is_good_for_its_own_algorithm_alone() {
        install();
        for (own, key, message, signature) in keys() {
            for (other, ..) in keys().into_iter().filter(|(other, ..)| *other != own) {
                assert!(verify(signature, message.as_bytes(), &key, other).is_err(), "{own:?} as {other:?}");
            }
            for other in [Algorithm::HS384, Algorithm::RS512, Algorithm::PS256, Algorithm::ES384] {
                assert!(verify(signature, message.as_bytes(), &key, other).is_err(), "{own:?} as {other:?}");
            }
        }
    }
}
