//! NATS payloads.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    contract::fuzz::payload(data);
    inventory_worker::endpoint::fuzz::payload(data);
});
