//! Credentials and API key lists.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    server::auth::fuzz::credential(&orders::served::contract(), data);
});
