package dev.towline.example;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;
import java.util.function.Predicate;
import towline.v1.AuthServiceOuterClass.LoginRequest;
import towline.v1.AuthServiceOuterClass.LoginResponse;
import towline.v1.RunOuterClass.Event;
import towline.v1.RunOuterClass.Run;
import towline.v1.RunServiceOuterClass.CancelRunRequest;
import towline.v1.RunServiceOuterClass.GetRunRequest;
import towline.v1.RunServiceOuterClass.StartRunRequest;
import towline.v1.RunServiceOuterClass.TailLogsRequest;
import towline.v1.RunServiceOuterClass.TailLogsResponse;
import towline.v1.RunServiceOuterClass.WatchRunRequest;
import towline.v1.WorkflowOuterClass.Dag;
import towline.v1.WorkflowOuterClass.Edge;
import towline.v1.WorkflowOuterClass.Node;
import towline.v1.WorkflowOuterClass.Workflow;
import towline.v1.WorkflowServiceOuterClass.CreateWorkflowRequest;

/** The scenario of all example clients: sign in, create a workflow, start a run, watch it, tail its logs, cancel it. */
public final class Scenario {
  // Who gets which step is nothing to a reader of the transcript.
  private static final Set<Event.Type> HANDOUTS =
      EnumSet.of(Event.Type.STEP_READY, Event.Type.STEP_OFFERED, Event.Type.STEP_OFFER_EXPIRED);

  private final Connection connection;
  private String seen = "";

  private Scenario(Connection connection) {
    this.connection = connection;
  }

  public static void main(String[] arguments) throws Exception {
    try (Connection connection = new Connection(System.getenv("TOWLINE_SERVER"))) {
      new Scenario(connection).play(System.getenv("EMAIL"), System.getenv("PASSWORD"));
    }
  }

  private void play(String email, String password) throws Exception {
    signIn(email, password);
    try {
      create(Dag.newBuilder().addNodes(node("no spaces", "DELAY", "seconds", number(1))).build());
    } catch (StatusRuntimeException refused) {
      explain(refused);
    }
    Workflow workflow = create(dag());
    System.out.printf(
        "created %s, version %d, nodes %d%n",
        workflow.getName(), workflow.getCurrentVersion(), workflow.getDag().getNodesCount());
    String runId = start(workflow.getId());
    watch(runId, event -> event.getType() == Event.Type.STEP_STARTED && event.getNodeId().equals("wait"));
    tail(runId, "greet", "goodbye");
    connection.runs().cancelRun(CancelRunRequest.newBuilder().setRunId(runId).build());
    watch(runId, event -> false);
    Run run = connection.runs().getRun(GetRunRequest.newBuilder().setRunId(runId).build()).getRun();
    System.out.println("ended " + run.getState());
  }

  private void signIn(String email, String password) {
    LoginRequest request = LoginRequest.newBuilder().setEmail(email).setPassword(password).build();
    LoginResponse login = connection.auth().login(request);
    connection.sign(login.getAccessToken());
    System.out.println("signed in as " + login.getUser().getEmail());
  }

  private static Dag dag() {
    Value command = Value.newBuilder().setStringValue("echo hello; echo goodbye").build();
    return Dag.newBuilder()
        .addNodes(node("greet", "SHELL", "command", command))
        .addNodes(node("wait", "DELAY", "seconds", number(600)).setTimeoutMs(900_000))
        .addEdges(Edge.newBuilder().setSource("greet").setTarget("wait"))
        .build();
  }

  private static Node.Builder node(String id, String type, String setting, Value value) {
    return Node.newBuilder().setId(id).setType(type).setConfig(Struct.newBuilder().putFields(setting, value));
  }

  private static Value number(double value) {
    return Value.newBuilder().setNumberValue(value).build();
  }

  private Workflow create(Dag dag) {
    CreateWorkflowRequest request = CreateWorkflowRequest.newBuilder().setName("example").setDag(dag).build();
    return connection.workflows().createWorkflow(request).getWorkflow();
  }

  /** Shows what an error says beyond its message: a reason for programs, and each field that is wrong. */
  private static void explain(StatusRuntimeException refused) throws InvalidProtocolBufferException {
    for (Any detail : StatusProto.fromThrowable(refused).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        String reason = detail.unpack(ErrorInfo.class).getReason();
        System.out.printf("refused: %s, reason %s%n", refused.getStatus().getCode(), reason);
      } else if (detail.is(BadRequest.class)) {
        for (var violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
          System.out.println("wrong field: " + violation.getField());
        }
      }
    }
  }

  private String start(String workflowId) {
    // The key makes the call safe to repeat: the same key starts the run only once.
    StartRunRequest request =
        StartRunRequest.newBuilder().setWorkflowId(workflowId).setRequestId(workflowId + "-1").build();
    String first = connection.runs().startRun(request).getRun().getId();
    String again = connection.runs().startRun(request).getRun().getId();
    System.out.println("started once: " + first.equals(again));
    return first;
  }

  /** Shows the events behind those that have been seen, until the run has ended or one is the last that is wanted. */
  private void watch(String runId, Predicate<Event> last) throws InterruptedException {
    Connection.follow(
        () -> connection.streams().watchRun(WatchRunRequest.newBuilder().setRunId(runId).setCursor(seen).build()),
        answer -> {
          seen = answer.getCursor();
          show(answer.getEvent());
          return !last.test(answer.getEvent());
        });
  }

  /** Shows the log of a node up to a line. */
  private void tail(String runId, String nodeId, String last) throws InterruptedException {
    var request = TailLogsRequest.newBuilder().setRunId(runId).setNodeId(nodeId).setFollow(true);
    Connection.follow(
        () -> connection.streams().tailLogs(request.build()),
        answer -> {
          List<TailLogsResponse> batch = answer.getBatchCount() > 0 ? answer.getBatchList() : List.of(answer);
          for (TailLogsResponse each : batch) {
            request.setCursor(each.getCursor());
            var line = each.getLine();
            if (each.hasLine()) {
              System.out.printf("log %s %s: %s%n", line.getNodeId(), line.getStream(), line.getText());
            }
            if (line.getText().equals(last)) {
              return false;
            }
          }
          return true;
        });
  }

  private static void show(Event event) {
    if (!HANDOUTS.contains(event.getType())) {
      System.out.println(("event " + event.getType() + " " + event.getNodeId()).strip());
    }
  }
}
