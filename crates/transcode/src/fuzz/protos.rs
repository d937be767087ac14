//! The messages among which a fuzzer chooses: every kind of field, with tags of one byte where there is room. Must not
//! change the sequence of the roots: files of the corpus name them by it.

pub(super) const ROOTS: [&str; 18] = [
    "t.Scalars",
    "t.Optional",
    "t.Lists",
    "t.Unpacked",
    "t.Maps",
    "t.Choice",
    "t.Tree",
    "t.Known",
    "t.Wrapped",
    "google.protobuf.Value",
    "google.protobuf.Struct",
    "google.protobuf.ListValue",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
    "google.protobuf.DoubleValue",
    "google.protobuf.Int64Value",
    "google.protobuf.Empty",
];

pub(super) const PROTO: &str = r#"
    syntax = "proto3";
    package t;
    import "google/protobuf/duration.proto";
    import "google/protobuf/empty.proto";
    import "google/protobuf/field_mask.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/wrappers.proto";
    enum Colour { option allow_alias = true; NONE = 0; RED = 1; CRIMSON = 1; BLUE = -2; FAR = 70000; }
    message Scalars {
      bool b = 1;
      int32 i32 = 2;
      int64 i64 = 3;
      uint32 u32 = 4;
      uint64 u64 = 5;
      sint32 s32 = 6;
      sint64 s64 = 7;
      fixed32 f32 = 8;
      fixed64 f64 = 9;
      sfixed32 sf32 = 10;
      sfixed64 sf64 = 11;
      float float = 12;
      double double = 13;
      string text_of_some_length = 14;
      bytes bytes = 15;
      Colour colour = 16;
      google.protobuf.NullValue null = 17;
      uint32 far = 300;
      string odd = 301 [json_name = "o\"d\\d"];
    }
    message Optional {
      optional bool b = 1;
      optional int32 i32 = 2;
      optional int64 i64 = 3;
      optional uint32 u32 = 4;
      optional uint64 u64 = 5;
      optional sint32 s32 = 6;
      optional sint64 s64 = 7;
      optional float float = 8;
      optional double double = 9;
      optional string text = 10;
      optional bytes bytes = 11;
      optional Colour colour = 12;
      optional google.protobuf.NullValue null = 13;
      Optional inner = 14;
    }
    message Lists {
      repeated bool b = 1;
      repeated int32 i32 = 2;
      repeated sint64 s64 = 3;
      repeated uint64 u64 = 4;
      repeated fixed32 f32 = 5;
      repeated sfixed64 sf64 = 6;
      repeated float float = 7;
      repeated double double = 8;
      repeated string text = 9;
      repeated bytes bytes = 10;
      repeated Colour colour = 11;
      repeated google.protobuf.NullValue null = 12;
      repeated Lists inner = 13;
      repeated google.protobuf.Value value = 14;
      repeated google.protobuf.Timestamp at = 15;
    }
    message Unpacked {
      repeated bool b = 1 [packed = false];
      repeated int32 i32 = 2 [packed = false];
      repeated double double = 3 [packed = false];
      repeated Colour colour = 4 [packed = false];
      repeated sfixed32 sf32 = 5 [packed = false];
    }
    message Maps {
      map<bool, Colour> b = 1;
      map<int32, string> i32 = 2;
      map<int64, Maps> i64 = 3;
      map<uint32, bytes> u32 = 4;
      map<uint64, google.protobuf.Value> u64 = 5;
      map<sint32, double> s32 = 6;
      map<sint64, google.protobuf.Duration> s64 = 7;
      map<fixed32, bool> f32 = 8;
      map<fixed64, Scalars> f64 = 9;
      map<sfixed32, google.protobuf.Int64Value> sf32 = 10;
      map<sfixed64, sint32> sf64 = 11;
      map<string, uint32> text = 12;
      map<string, Maps> inner = 13;
      map<string, google.protobuf.NullValue> null = 14;
    }
    message Choice {
      oneof first { string text = 1; uint32 number = 2; google.protobuf.NullValue null = 3; Choice inner = 4; }
      oneof second { google.protobuf.Value value = 5; Colour colour = 6; double double = 7; google.protobuf.Empty empty = 8; }
      bool b = 9;
    }
    message Tree { Tree left = 1; repeated Tree more = 2; uint32 number = 3; map<uint32, Tree> named = 4; string name = 5; }
    message Known {
      google.protobuf.Timestamp at = 1;
      google.protobuf.Duration every = 2;
      google.protobuf.FieldMask mask = 3;
      google.protobuf.Empty empty = 4;
      google.protobuf.Struct struct = 5;
      google.protobuf.Value value = 6;
      google.protobuf.ListValue list = 7;
      Known inner = 8;
    }
    message Wrapped {
      google.protobuf.DoubleValue double = 1;
      google.protobuf.FloatValue float = 2;
      google.protobuf.Int64Value i64 = 3;
      google.protobuf.UInt64Value u64 = 4;
      google.protobuf.Int32Value i32 = 5;
      google.protobuf.UInt32Value u32 = 6;
      google.protobuf.BoolValue b = 7;
      google.protobuf.StringValue text = 8;
      google.protobuf.BytesValue bytes = 9;
    }
"#;
