package dev.towline.example;

import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Message;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.MethodDescriptor.MethodType;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.function.Supplier;

/**
 * A connection to a control plane in the name of one user; gRPC connects on first use, and anew whenever it is let go.
 *
 * <p>Methods are named by their requests, {@code GetRun} by {@code GetRunRequest}, as in the whole contract; stubs that
 * protoc-gen-grpc-java makes of the same protos do as well.
 */
final class Connection implements AutoCloseable {
  // What may be sent again after UNAVAILABLE, and how. CreateWorkflow is not among it: it would create two.
  private static final Map<String, ?> SERVICE_CONFIG =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(
                      Map.of("service", "towline.v1.AuthService"), Map.of("service", "towline.v1.RunService")),
                  "retryPolicy",
                  Map.of(
                      "maxAttempts", 5.0,
                      "initialBackoff", "0.1s",
                      "maxBackoff", "2s",
                      "backoffMultiplier", 2.0,
                      "retryableStatusCodes", List.of("UNAVAILABLE")))));
  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
  private static final int DEADLINE_SECONDS = 10;
  private static final int RESUME_WAIT_MS = 100;

  private final ManagedChannel connection;
  private Channel channel;

  Connection(String server) {
    connection =
        Grpc.newChannelBuilder(server, InsecureChannelCredentials.create())
            .defaultServiceConfig(SERVICE_CONFIG)
            // The control plane allows a ping every 10 s.
            .keepAliveTime(30, SECONDS)
            .keepAliveTimeout(10, SECONDS)
            .keepAliveWithoutCalls(true)
            .maxInboundMessageSize(32 << 20)
            .build();
    channel = connection;
  }

  /** Makes all later calls in the name of a token's user. */
  void sign(String token) {
    Metadata headers = new Metadata();
    headers.put(AUTHORIZATION, "Bearer " + token);
    channel = ClientInterceptors.intercept(connection, MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  /** Makes a unary call, with a deadline. */
  <A extends Message> A call(Message request, A answer) {
    CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
    return ClientCalls.blockingUnaryCall(channel, method(MethodType.UNARY, request, answer), options, request);
  }

  /**
   * Shows each answer of a stream once and in order until it ends or {@code see} has enough. When the connection is lost
   * the stream is opened again; {@code request} says how to go on behind what has been seen.
   */
  <A extends Message> void follow(
      Supplier<Message> request, A answer, Predicate<A> see) throws InterruptedException {
    while (true) {
      try (Context.CancellableContext context = Context.current().withCancellation()) {
        Context outer = context.attach();
        try {
          Message asked = request.get();
          MethodDescriptor<Message, A> method = method(MethodType.SERVER_STREAMING, asked, answer);
          Iterator<A> answers =
              ClientCalls.blockingServerStreamingCall(channel, method, CallOptions.DEFAULT, asked);
          while (answers.hasNext()) {
            if (!see.test(answers.next())) {
              return;
            }
          }
          return;
        } finally {
          context.detach(outer);
        }
      } catch (StatusRuntimeException lost) {
        if (lost.getStatus().getCode() != Status.Code.UNAVAILABLE) {
          throw lost;
        }
      }
      Thread.sleep(RESUME_WAIT_MS);
    }
  }

  @Override
  public void close() {
    connection.shutdownNow();
  }

  private static <A extends Message> MethodDescriptor<Message, A> method(MethodType type, Message request, A answer) {
    var asked = request.getDescriptorForType();
    String service = asked.getFile().getServices().get(0).getFullName();
    String name = asked.getName().replaceFirst("Request$", "");
    return MethodDescriptor.<Message, A>newBuilder()
        .setType(type)
        .setFullMethodName(MethodDescriptor.generateFullMethodName(service, name))
        .setRequestMarshaller(ProtoUtils.marshaller(request.getDefaultInstanceForType()))
        .setResponseMarshaller(ProtoUtils.marshaller(answer))
        .build();
  }
}
