//! Compiles the .proto files of the gateway, without `protoc`. Whoever builds without the gateway
//! waits for nothing here.

use std::error::Error;

/// What is served.
#[cfg(feature = "gateway")]
const FILES: [&str; 6] = [
    "mvccpb.proto",
    "etcdserverpb.proto",
    "v3lockpb.proto",
    "v3electionpb.proto",
    "health.proto",
    "raftd.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    for read in ["src/gateway/build.rs", "src/gateway/proto"] {
        println!("cargo::rerun-if-changed={read}");
    }
    compile()
}

#[cfg(feature = "gateway")]
fn compile() -> Result<(), Box<dyn Error>> {
    let files = protox::compile(FILES, ["src/gateway/proto"])?;
    // Bytes instead of vectors: a value goes from one socket to the other without a copy of its
    // own.
    tonic_prost_build::configure().bytes(".").compile_fds(files)?;
    Ok(())
}

#[cfg(not(feature = "gateway"))]
fn compile() -> Result<(), Box<dyn Error>> {
    Ok(())
}
