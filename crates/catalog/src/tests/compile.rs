//! Compiles protos from text, as a user's tools would.

use std::sync::Arc;

use prost_reflect::DescriptorPool;
use protox::file::{File, FileResolver as _, GoogleFileResolver};

use crate::{Catalog, Findings};

const GOOGLE: [&str; 6] = ["descriptor", "duration", "empty", "struct", "timestamp", "wrappers"];
const OPTIONS: [(&str, &str); 2] = [
    ("natsgateway/v1/access.proto", include_str!("../../../../proto/natsgateway/v1/access.proto")),
    ("natsgateway/v1/route.proto", include_str!("../../../../proto/natsgateway/v1/route.proto")),
];

/// The descriptor set of these files, by name and text, each after those that it imports.
pub(super) fn compile(files: &[(&str, &str)]) -> Vec<u8> {
    let mut pool = DescriptorPool::new();
    let mut add = |file: File| pool.add_file_descriptor_proto(file.file_descriptor_proto().clone()).unwrap();
    for name in GOOGLE {
        add(GoogleFileResolver::new().open_file(&format!("google/protobuf/{name}.proto")).unwrap());
    }
    let options = if files.iter().any(|(name, _)| *name == OPTIONS[1].0) { &[] } else { &OPTIONS[..] };
    for (name, text) in options.iter().chain(files) {
        add(File::from_source(name, text).unwrap());
    }
    pool.encode_to_vec()
}

/// The set of one file that has this text behind its imports.
pub(super) fn file(text: &str) -> Vec<u8> {
    let imports =
        "syntax = \"proto3\"; import \"natsgateway/v1/access.proto\"; import \"natsgateway/v1/route.proto\";";
    compile(&[("test.proto", &format!("{imports}\n{text}"))])
}

/// The set of a service `acme.Things` with one rpc `Get`, which has these options.
pub(super) fn rpc(options: &str) -> Vec<u8> {
    file(&format!(
        "package acme;
         service Things {{ rpc Get(Request) returns (Reply) {{ {options} }} }}
         message Request {{ string id = 1; repeated Thing things = 2; }}
         message Thing {{ string name = 1; }}
         message Reply {{ Thing thing = 1; }}"
    ))
}

/// The same with this route.
pub(super) fn routed(route: &str) -> Vec<u8> {
    rpc(&format!("option (natsgateway.v1.route) = {{{route}}};"))
}

pub(super) fn accepted(descriptors: &[u8]) -> Arc<Catalog> {
    Catalog::new(descriptors).unwrap_or_else(|findings| panic!("{findings}"))
}

pub(super) fn refused(descriptors: &[u8]) -> Findings {
    Catalog::new(descriptors).expect_err("the catalog should refuse this")
}
