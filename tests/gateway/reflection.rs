//! What is served, asked for by reflection, in both versions of it.

use super::harness::PATIENCE;
use super::http::{handled, number};
use super::patience::eventually;
use super::program::with_gateway;
use super::web::get;
use raftd::gateway::proto::DESCRIPTORS;

/// The same questions in the words of one version.
macro_rules! questions {
    ($version:ident, $clients:expr) => {{
        use tonic::codegen::tokio_stream::iter;
        use tonic_reflection::pb::$version::ServerReflectionRequest;
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;

        let asked = [
            MessageRequest::ListServices(String::new()),
            MessageRequest::FileContainingSymbol("etcdserverpb.Member".to_owned()),
            MessageRequest::FileByFilename("v3lockpb.proto".to_owned()),
            MessageRequest::FileContainingSymbol("etcdserverpb.Nobody".to_owned()),
        ];
        let asked = asked.map(|it| ServerReflectionRequest {
            message_request: Some(it),
            ..ServerReflectionRequest::default()
        });
        let mut client = ServerReflectionClient::new($clients.channel());
        let mut heard = client.server_reflection_info(iter(asked)).await.unwrap().into_inner();
        let Some(MessageResponse::ListServicesResponse(list)) =
            heard.message().await.unwrap().unwrap().message_response
        else {
            panic!("it is no list");
        };
        let mut files = Vec::new();
        for _ in 0..2 {
            match heard.message().await.unwrap().unwrap().message_response {
                Some(MessageResponse::FileDescriptorResponse(it)) => {
                    files.extend(it.file_descriptor_proto)
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard.message().await.unwrap_err().code(), tonic::Code::NotFound);
        (list.service.into_iter().map(|it| it.name).collect::<Vec<String>>(), files)
    }};
}

fn has(file: &[u8], word: &str) -> bool {
    file.windows(word.len()).any(|window| window == word.as_bytes())
}

#[test]
fn what_is_served_can_be_asked_for() {
    with_gateway(1, |clients, gateway| async move {
        for (services, files) in [questions!(v1, clients), questions!(v1alpha, clients)] {
            for service in [
                "etcdserverpb.KV",
                "etcdserverpb.Maintenance",
                "v3electionpb.Election",
                "v3lockpb.Lock",
                "grpc.health.v1.Health",
                "raftd.v1.KV",
            ] {
                assert!(services.iter().any(|name| name == service), "{service}: {services:?}");
            }
            let [etcds, locks] = &files[..] else { panic!("{} files", files.len()) };
            // Fields have etcd's names, whatever ours are.
            for name in ["peerURLs", "isLearner", "grantedTTL", "create_revision"] {
                assert!(has(DESCRIPTORS, name), "{name}");
            }
            assert!(has(etcds, "clientURLs") && !has(etcds, "client_urls"));
            assert!(has(locks, "UnlockRequest"));
        }
        // That was a call for each version, and its end was that there is no such thing.
        for version in ["v1", "v1alpha"] {
            let labels = format!(
                "grpc_method=\"ServerReflectionInfo\",\
                 grpc_service=\"grpc.reflection.{version}.ServerReflection\",\
                 grpc_type=\"bidi_stream\""
            );
            let text = || get(&gateway.address, "/metrics").text;
            let started = number(&text(), &format!("grpc_server_started_total{{{labels}}}"));
            assert_eq!(started, Some(1));
            eventually("its end is counted", PATIENCE, || {
                (handled(&text(), "NotFound", &labels) == Some(1)).then_some(())
            });
        }
    });
}
