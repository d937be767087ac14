//! Messages and payloads of any contract, by plans.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    transcode::fuzz::transcode(data);
});
