//! Keys of adjustments: the caller and the request id. No choice of an id makes one caller's key equal another's. Keys
//! are in the ledger, so those that earlier builds wrote are recognised. Pure.

use uuid::Uuid;

/// The namespace of known callers' keys (UUIDv5). Must never change: repeats would become new adjustments.
const NAMESPACE: Uuid = Uuid::from_u128(0x8c1f_52d3_0b7e_4a96_b3d5_1e70_6f42_97ca);
/// Prefix of an anonymous caller's id that looks like a known caller's key. No request id has this character.
const ESCAPE: &str = "=";

/// The key of an adjustment by this principal (empty: anonymous) under this request id.
pub fn of(principal: &str, request_id: &str) -> Box<str> {
    match principal {
        "" if is_known(request_id) => format!("{ESCAPE}{request_id}").into(),
        "" => request_id.into(),
        // A request id contains no \0, so the separator is unambiguous.
        _ => Uuid::new_v5(&NAMESPACE, format!("{principal}\0{request_id}").as_bytes()).to_string().into(),
    }
}

/// Whether a key has the form of a known caller's.
pub(super) fn is_known(key: &str) -> bool {
    Uuid::try_parse(key).is_ok_and(|uuid| uuid.get_version_num() == 5 && uuid.to_string() == key)
}

/// The key that earlier builds gave the same adjustment, if it was another one. They gave it to a known caller's
/// adjustment as well.
pub(super) fn before(key: &str) -> Option<&str> {
    key.strip_prefix(ESCAPE)
}
