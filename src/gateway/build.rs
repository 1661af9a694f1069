//! Compiles the .proto files of the gateway, without `protoc`. Whoever builds without the gateway
//! waits for nothing here.

use std::error::Error;

/// What is served.
#[cfg(feature = "gateway")]
const FILES: [&str; 7] = [
    "authpb.proto",
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
    let mut compiler = protox::Compiler::new(["src/gateway/proto"])?;
    let compiler = compiler.include_imports(true).open_files(FILES)?;
    // For clients that ask what is served, and for JSON: by etcd's names, without comments.
    let described = std::path::Path::new(&std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(described, compiler.encode_file_descriptor_set())?;
    let mut files = compiler.include_source_info(true).file_descriptor_set();
    // `peerURLs` would be `peer_ur_ls`.
    let messages = files.file.iter_mut().flat_map(|file| &mut file.message_type);
    for field in messages.flat_map(|message| &mut message.field) {
        field.name = field.name.take().map(|name| name.replace("URLs", "Urls"));
    }
    // Bytes instead of vectors: a value goes from one socket to the other without a copy of its
    // own.
    let compiler = tonic_prost_build::configure().bytes(".");
    compiler.codec_path("crate::gateway::codec::OwnCodec").compile_fds(files)?;
    Ok(())
}

#[cfg(not(feature = "gateway"))]
fn compile() -> Result<(), Box<dyn Error>> {
    Ok(())
}
