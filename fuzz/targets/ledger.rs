//! Entries and snapshots of the ledger.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    inventory_worker::stock::fuzz::ledger(data);
});
