//! Calls of any rpc by its path, with messages as bytes.

use bytes::{Buf, BufMut, Bytes};
use futures_util::Stream;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

/// A codec that passes messages unchanged.
#[derive(Clone, Copy, Default)]
pub struct BytesCodec;

/// Calls an rpc, unary or streaming, and returns its response messages.
pub async fn call(
    channel: &Channel,
    path: &str,
    message: Bytes,
    metadata: &[(&'static str, &str)],
) -> Result<Streaming<Bytes>, Status> {
    Ok(open(channel, path, message, metadata).await?.into_inner())
}

/// Calls an rpc, unary or streaming, and returns its response with the initial metadata.
pub async fn open(
    channel: &Channel,
    path: &str,
    message: Bytes,
    metadata: &[(&'static str, &str)],
) -> Result<Response<Streaming<Bytes>>, Status> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    grpc.server_streaming(request, path, BytesCodec).await
}

/// Calls an rpc with a stream of messages, and returns its response message.
#[allow(dead_code, reason = "not all tests that include this send streams")]
pub async fn send(
    channel: &Channel,
    path: &str,
    messages: impl Stream<Item = Bytes> + Send + 'static,
    metadata: &[(&'static str, &str)],
) -> Result<Bytes, Status> {
    let mut request = Request::new(messages);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let path = PathAndQuery::try_from(path).unwrap();
    Ok(grpc.client_streaming(request, path, BytesCodec).await?.into_inner())
}

/// Calls an rpc, and returns its first response message.
pub async fn ask(
    channel: &Channel,
    path: &str,
    message: Bytes,
    metadata: &[(&'static str, &str)],
) -> Result<Bytes, Status> {
    let mut answer = call(channel, path, message, metadata).await?;
    Ok(answer.message().await?.expect("a message"))
}

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = BytesCodec;
    type Decoder = BytesCodec;

    fn encoder(&mut self) -> BytesCodec {
        BytesCodec
    }

    fn decoder(&mut self) -> BytesCodec {
        BytesCodec
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
