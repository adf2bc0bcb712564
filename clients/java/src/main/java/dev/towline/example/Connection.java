package dev.towline.example;

import static java.util.concurrent.TimeUnit.SECONDS;

import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import java.util.function.Supplier;
import towline.v1.AuthServiceGrpc;
import towline.v1.AuthServiceGrpc.AuthServiceBlockingStub;
import towline.v1.RunServiceGrpc;
import towline.v1.RunServiceGrpc.RunServiceBlockingStub;
import towline.v1.WorkflowServiceGrpc;
import towline.v1.WorkflowServiceGrpc.WorkflowServiceBlockingStub;

/** A connection to a control plane in the name of one user; gRPC connects on first use, and anew whenever it is let go. */
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

  /** Signs in; each call has a deadline, as have those of the other unary methods. */
  AuthServiceBlockingStub auth() {
    return AuthServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
  }

  /** Handles workflows. */
  WorkflowServiceBlockingStub workflows() {
    return WorkflowServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
  }

  /** Handles runs. */
  RunServiceBlockingStub runs() {
    return RunServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE_SECONDS, SECONDS);
  }

  /** Streams what happens in runs, for as long as it takes. */
  RunServiceBlockingStub streams() {
    return RunServiceGrpc.newBlockingStub(channel);
  }

  /**
   * Shows each answer of a stream once and in order until it ends or {@code see} has enough. When the connection is lost
   * the stream is opened again; {@code open} does so behind what has been seen.
   */
  static <A> void follow(Supplier<Iterator<A>> open, Predicate<A> see) throws InterruptedException {
    while (true) {
      try (Context.CancellableContext context = Context.current().withCancellation()) {
        Context outer = context.attach();
        try {
          Iterator<A> answers = open.get();
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
}
