//! Page and resume tokens.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    orders::feed::fuzz::token(data);
    inventory_worker::endpoint::fuzz::token(data);
});
