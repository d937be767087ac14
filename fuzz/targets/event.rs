//! Stored order events.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    order_streams::fuzz::event(data);
    inventory_worker::events::fuzz::event(data);
});
