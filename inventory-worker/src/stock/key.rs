//! Keys of adjustments: who makes it, and under which request id. No choice of an id makes one caller's key another's.
//! Keys are in the ledger, so those that the builds before wrote are known again. Pure.

use uuid::Uuid;

/// The namespace of known callers' keys (UUIDv5). Fixed for ever: another one would make repeats into new adjustments.
const NAMESPACE: Uuid = Uuid::from_u128(0x8c1f_52d3_0b7e_4a96_b3d5_1e70_6f42_97ca);
/// Before an anonymous caller's id that looks like a known caller's key. No request id has this character.
const ESCAPE: &str = "=";

/// The key of an adjustment by this principal (empty: anonymous) under this request id.
pub fn of(principal: &str, request_id: &str) -> Box<str> {
    match principal {
        "" if is_known(request_id) => format!("{ESCAPE}{request_id}").into(),
        "" => request_id.into(),
        // A request id has no \0, so the two cannot be cut apart in another place.
        _ => Uuid::new_v5(&NAMESPACE, format!("{principal}\0{request_id}").as_bytes()).to_string().into(),
    }
}

/// Whether a key has the form of a known caller's.
pub(super) fn is_known(key: &str) -> bool {
    Uuid::try_parse(key).is_ok_and(|uuid| uuid.get_version_num() == 5 && uuid.to_string() == key)
}

/// The key that the builds before this one gave the same adjustment, where it was another. They gave it to a known
/// caller's adjustment as well.
pub(super) fn before(key: &str) -> Option<&str> {
    key.strip_prefix(ESCAPE)
}
