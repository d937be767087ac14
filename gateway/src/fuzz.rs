//! Invariants of whole calls and replies, over the contract. Driven by the fuzzers in fuzz/, and by their corpus in every
//! test run.

use catalog::Encoding;
use orders::order;
use orders::served::contract;

/// A call: a byte for its rpc, then what `server::fuzz::request` reads. Whatever is forwarded uses only the characters
/// that subjects and headers allow.
///
/// # Panics
/// If anything does not.
pub fn request(data: &[u8]) {
    let Some((rpc, data)) = data.split_first() else { return };
    let (call, message) = server::fuzz::request(data);
    let catalog = contract();
    bridge::fuzz::told(&catalog.routes()[0], &call);
    let rpcs = usize::from(order::fuzz::RPCS) + catalog.routes().len();
    match (usize::from(*rpc) % rpcs).checked_sub(usize::from(order::fuzz::RPCS)) {
        None => order::fuzz::request(*rpc % rpcs as u8, message, &call),
        Some(route) => {
            let route = &catalog.routes()[route];
            if let Ok(payload) = route.codec.request(message) {
                let read = serde_json::from_slice::<serde_json::Value>(&payload);
                assert!(route.encoding != Encoding::Json || read.is_ok(), "what goes on is JSON");
            }
        }
    }
}

/// A service's reply, as `bridge::fuzz::reply` reads it: each refusal in it becomes a status that every client can
/// parse.
///
/// # Panics
/// If one does not.
pub fn reply(data: &[u8]) {
    bridge::fuzz::reply(contract().routes(), data).into_iter().for_each(server::fuzz::said);
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_the_fuzzers_found_and_began_with_still_holds() {
        crate::replay::each("request", super::request);
        crate::replay::each("reply", super::reply);
    }
}
