//! Descriptor sets and payloads of any bytes: refused or read, never a panic.

use super::compile::file;
use crate::Catalog;

const ROUNDS: u64 = 1_000;

/// The bytes with a few of them changed, left out or repeated; the same seed changes the same ones.
fn broken(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % end
    };
    let mut bytes = bytes.to_vec();
    for _ in 0..=below(4) {
        let place = below(bytes.len());
        match below(3) {
            0 => bytes[place] = u8::try_from(below(256)).unwrap(),
            1 => drop(bytes.remove(place)),
            _ => bytes.insert(place, bytes[place]),
        }
    }
    bytes
}

const THING: &[u8] = br#"{"requestId":"r","things":[{"name":"a","inner":{"kind":"SOME"}}],"named":{"7":{}},
    "image":"AP8=","at":"2026-11-28T21:00:00Z","extra":{"a":[1,null,{"b":"c"}]}}"#;

fn shop() -> Vec<u8> {
    file(
        "package acme; import \"google/protobuf/struct.proto\"; import \"google/protobuf/timestamp.proto\";
         service Things { rpc Get(Request) returns (Request) {
           option idempotency_level = IDEMPOTENT;
           option (natsgateway.v1.access) = {scope: \"things\"};
           option (natsgateway.v1.route) = {subject: \"get\" body: \"things\" timeout: {seconds: 1}};
         } }
         message Request {
           string request_id = 1; repeated Thing things = 2; map<int32, Thing> named = 3;
           oneof choice { Kind kind = 4; double weight = 5; } optional bytes image = 6;
           google.protobuf.Timestamp at = 7; google.protobuf.Struct extra = 8;
           enum Kind { NONE = 0; SOME = 1; }
         }
         message Thing { string name = 1; Request inner = 2; }",
    )
}

#[test]
fn a_broken_set_is_refused_or_read() {
    let set = shop();
    let thing = Catalog::new(&set).unwrap().routes()[0].codec.reply(THING).unwrap();
    // The last file is ours; the others are options and well-known types.
    let ours = set.windows(10).rposition(|window| window == b"test.proto").unwrap();
    let (mut read, mut refused) = (0, 0);
    for seed in 0..ROUNDS {
        let (before, ours) = set.split_at(ours);
        let set = match seed % 4 {
            0 => [&broken(before, seed), ours].concat(),
            _ => [before, &broken(ours, seed)].concat(),
        };
        match Catalog::new(&set) {
            Ok(catalog) => {
                read += 1;
                for route in catalog.routes() {
                    let codec = &route.codec;
                    let _ = (codec.request(&thing), codec.reply(THING), codec.repeatable(&thing));
                }
            }
            Err(findings) => {
                refused += 1;
                assert!(findings.iter().count() > 0 && findings.to_string().len() < 20_000);
            }
        }
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

#[test]
fn broken_messages_are_refused_or_read() {
    let catalog = Catalog::new(&shop()).unwrap();
    let codec = &catalog.route("/acme.Things/Get").unwrap().codec;
    let request = codec.reply(THING).unwrap();
    for seed in 0..ROUNDS {
        for answer in [codec.request(&broken(&request, seed)), codec.reply(&broken(THING, seed))] {
            if let Err(error) = answer {
                assert!(
                    error.to_string().len() < 2_000 && !error.to_string().contains(char::is_control),
                    "{error}"
                );
            }
        }
    }
}
