"""A generated client: pip install grpcio grpcio-tools, and the two commands of docs/tutorial.md before this one."""

import sys

import grpc

import greeter_pb2
import greeter_pb2_grpc

with grpc.insecure_channel(sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051") as channel:
    greeter = greeter_pb2_grpc.GreeterServiceStub(channel)
    try:
        print(greeter.SayHello(greeter_pb2.SayHelloRequest(name=sys.argv[1]), timeout=5).text)
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
