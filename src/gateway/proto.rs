//! What tonic and prost make of the .proto files beside this one: messages, servers, and clients
//! for the tests.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::as_conversions,
    clippy::too_many_lines,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]

pub mod authpb {
    tonic::include_proto!("authpb");
}

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

pub mod raftd {
    tonic::include_proto!("raftd.v1");
}

pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}

pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// All of the above as a `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("descriptors");
