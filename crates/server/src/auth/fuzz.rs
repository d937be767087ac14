//! Invariants of any credential and any list of callers: only valid credentials are accepted, and every principal fits
//! into a header. Driven by the fuzzers in fuzz/, and by their corpus in every test run.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catalog::Catalog;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::Algorithm;
use ring::hmac;
use serde_json::Value;
use tokio::runtime::Runtime;
use wire::text::is_tenant;
use zeroize::Zeroizing;

use super::caller::PRINCIPAL;
use super::keyset::KeySet;
use super::quota::Quotas;
use super::{API_KEY, AUTHORIZATION, Access, AuthError, Caller, apikey};
use crate::config::access::{Access as Config, Place};
use crate::served::Current;

const SECRET: &[u8; 32] = b"known to the fuzzer and to tests";
const ISSUER: &str = "https://id.example.com/";
const AUDIENCE: &str = "orders";
/// RFC 8037, A.2.
const JWKS: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Credentials and lists. The first byte is the kind of the rest: the value of `authorization` or of `x-api-key`, the
/// claims of a token that is signed here, its header in a line before them, a list of keys, or a JWKS.
///
/// # Panics
/// If invalid credentials are accepted, or valid ones authenticate another caller.
pub fn credential(catalog: &Arc<Catalog>, data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind {
        b'b' => forged(catalog, "authorization", data),
        b'k' => forged(catalog, API_KEY, data),
        b'c' => signed(catalog, r#"{"alg":"HS256"}"#.as_bytes(), data),
        b'h' => {
            let line = data.iter().position(|b| *b == b'\n').unwrap_or(data.len());
            signed(catalog, &data[..line], data.get(line + 1..).unwrap_or_default());
        }
        b'l' => listed(catalog, data),
        b'j' => set_of_keys(data),
        _ => {}
    }
}

/// Credentials that are neither signed nor on a list.
fn forged(catalog: &Arc<Catalog>, name: &'static str, value: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(value) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(name, value.clone());
    assert!(known(catalog, &headers).is_err(), "{value:?} was believed");
    headers.append(name, value);
    assert_eq!(known(catalog, &headers).err(), Some(AuthError::Several), "there are two of them");
}

/// A token signed with our secret: valid only if its header and its claims are.
fn signed(catalog: &Arc<Catalog>, header: &[u8], claims: &[u8]) {
    let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    let token = format!("Bearer {text}.{signature}");
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&token).expect("base64 fits a header"));
    let Ok(caller) = known(catalog, &headers) else { return };
    named(&caller, "jwt:");
    let header: Value = serde_json::from_slice(header).expect("the header of a good token is JSON");
    assert_eq!(header["alg"], "HS256", "no other algorithm has this key");
    assert!(header.get("crit").is_none_or(Value::is_null), "nothing critical is understood");
    let claims: Value = serde_json::from_slice(claims).expect("so are its claims");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    assert!(claims["exp"].as_f64().is_some_and(|exp| exp > now - 62.0), "it has expired");
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf < now + 62.0), "it is not valid yet");
    let says = |claim: &Value, text: &str| {
        claim == text || claim.as_array().is_some_and(|list| list.iter().any(|one| one == text))
    };
    assert!(says(&claims["iss"], ISSUER) && says(&claims["aud"], AUDIENCE), "it is not for us");
    assert!(claims["sub"].as_str().is_some_and(|subject| !subject.is_empty()));
    let customer = claims.get("customer_id");
    assert_eq!(customer.and_then(Value::as_str), caller.tenant.one());
    let all = customer.is_some_and(|claim| *claim == serde_json::json!(["*"]));
    assert_eq!(all, caller.tenant == bridge::Tenancy::All, "only a claim that says so is for all");
}

fn named(caller: &Caller, kind: &str) {
    assert!(caller.principal.starts_with(kind) && caller.principal.len() <= PRINCIPAL);
    assert!(caller.principal.bytes().all(|b| b.is_ascii_graphic()), "{:?}", caller.principal);
    if let Some(customer) = caller.tenant.one() {
        assert!(is_tenant(customer), "{customer:?}");
    }
}

/// A list that can be parsed can be parsed with one more line, whose key is then accepted, and no other.
fn listed(catalog: &Arc<Catalog>, list: &[u8]) {
    let read = |list: &[u8]| apikey::Keys::read(catalog, &[Zeroizing::new(list.to_vec())]);
    // Two customers of one name exclude each other.
    if read(list).is_err() || list.windows(4).any(|part| part == b"fuzz") {
        return;
    }
    let made =
        apikey::new(catalog, "fuzz", &["orders.read".to_owned()], Some("Zoë")).expect("a key can be made");
    let keys = read(&[list, b"\n", made.line.as_bytes()].concat()).expect("one more line does no harm").value;
    let accounts = Quotas::new(9, 0);
    let caller = keys.caller(&made.key, &accounts).expect("its key is known");
    named(&caller, "key:");
    assert_eq!((&*caller.principal, caller.tenant.one()), ("key:fuzz", Some("Zoë")));
    assert!(keys.caller(&format!("{}A", *made.key), &accounts).is_err(), "another key is known");
}

/// JWKS keys are only for asymmetric signatures, whatever a document contains.
fn set_of_keys(json: &[u8]) {
    if let Ok(keys) = KeySet::read(json) {
        assert!((1..=64).contains(&keys.len()));
        for other in [Algorithm::HS256, Algorithm::HS512, Algorithm::PS256, Algorithm::ES384] {
            assert!(keys.find(None, other).is_none(), "a key is for {other:?}");
        }
    }
}

/// Authenticates these headers, with a secret, a key set and a list in use.
fn known(catalog: &Arc<Catalog>, headers: &HeaderMap) -> Result<std::sync::Arc<Caller>, AuthError> {
    static ACCESS: OnceLock<(Runtime, Access)> = OnceLock::new();
    let (runtime, access) = ACCESS.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let access = runtime
            .block_on(Access::open(&config(catalog), &Current::of(catalog)))
            .expect("the configuration is good");
        (runtime, access.expect("callers have to be known").0)
    });
    runtime.block_on(access.caller(headers, None, None))
}

fn config(catalog: &Catalog) -> Config {
    let folder = std::env::temp_dir().join(format!("gateway-fuzz-{}", std::process::id()));
    let file = |name: &str, contents: &[u8]| -> PathBuf {
        std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(name), contents))
            .expect(name);
        folder.join(name)
    };
    let key = apikey::new(catalog, "shop", &["orders.read".to_owned()], None).expect("a key can be made");
    Config {
        jwt_secret_file: Some(file("secret", SECRET)),
        jwt_jwks: Some(Place::File(file("jwks", JWKS.as_bytes()))),
        api_keys: Some(file("keys", key.line.as_bytes())),
        jwt_issuer: Some(ISSUER.to_owned()),
        jwt_audience: vec![AUDIENCE.to_owned()],
        ..Config::default()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("credential", |data| super::credential(&crate::tests::contract(), data));
    }
}
