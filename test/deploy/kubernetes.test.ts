/** The Kubernetes manifests, as far as they can be judged without a cluster: by their schemas, and by what they have to say to each other. */
import { globSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { IDeployment } from "kubernetes-models/apps/v1";
import type { IHorizontalPodAutoscaler } from "kubernetes-models/autoscaling/v2";
import type { IIngress, INetworkPolicy } from "kubernetes-models/networking.k8s.io/v1";
import type { IPodDisruptionBudget } from "kubernetes-models/policy/v1";
import type { IConfigMap, INamespace, IService } from "kubernetes-models/v1";
import { beforeAll, describe, expect, test } from "vitest";
import { HAPROXY_CONFIG } from "../../infra/haproxy.ts";
import { readConfig } from "../../realtime/config.ts";
import { brokenBySchema, brokenByTypes, type Manifest, parseManifests, readManifests } from "../support/manifest.ts";

const FOLDER = join(import.meta.dirname, "..", "..", "infra", "deploy", "kubernetes");
const SECRETS = { CLUSTER_SECRET: "a secret of thirty-two characters", REDIS_URL: "redis://keycard:x@redis:6379" };

let all: readonly Manifest[];

beforeAll(async () => {
  const files = globSync("*.yaml", { cwd: FOLDER }).sort();
  all = (await Promise.all(files.map((file) => readManifests(join(FOLDER, file))))).flat();
});

function theOne<T>(kind: string): T {
  const found = all.filter((manifest) => manifest.kind === kind);
  expect(found).toHaveLength(1);
  return found[0] as T;
}

const deployment = () => theOne<IDeployment>("Deployment");
const pod = () => deployment().spec?.template.spec;
const container = () => pod()?.containers[0];
const settings = () => theOne<IConfigMap>("ConfigMap").data ?? {};

describe("every manifest", () => {
  test("is what its kind's schema says, and has no member that there is not", async () => {
    expect(all.map(({ kind }) => kind).sort()).toEqual([
      "ConfigMap",
      "Deployment",
      "HorizontalPodAutoscaler",
      "Ingress",
      "Namespace",
      "NetworkPolicy",
      "PodDisruptionBudget",
      "Service",
    ]);
    expect(await brokenBySchema(all)).toEqual([]);
    expect(await brokenByTypes(all)).toEqual([]);
  });

  test("is in the one namespace, which holds pods to the restricted standard", () => {
    const { metadata } = theOne<INamespace>("Namespace");
    expect(metadata?.labels?.["pod-security.kubernetes.io/enforce"]).toBe("restricted");
    for (const manifest of all)
      if (manifest.kind !== "Namespace") expect(manifest.metadata.namespace).toBe(metadata?.name);
  });

  test("holds no secret", () => {
    expect(all.filter(({ kind }) => kind === "Secret")).toEqual([]);
  });
});

describe("the judges notice", () => {
  const pods = (member: string) =>
    parseManifests(`
apiVersion: apps/v1
kind: Deployment
metadata: { name: x }
spec:
  selector: { matchLabels: { a: b } }
  template:
    metadata: { labels: { a: b } }
    spec: { containers: [{ name: x, ${member} }] }`);

  test("a value of another kind", async () => {
    expect(await brokenBySchema(pods("securityContext: { runAsNonRoot: yes please }"))).toHaveLength(1);
    expect(await brokenBySchema(pods("securityContext: { runAsNonRoot: true }"))).toEqual([]);
  });

  test("a member that is misspelt, however deep", async () => {
    expect(await brokenByTypes(pods("livenesProbe: {}"))).toHaveLength(1);
    expect(await brokenByTypes(pods("securityContext: { readOnlyRootFileSystem: true }"))).toHaveLength(1);
    expect(await brokenByTypes(pods("securityContext: { readOnlyRootFilesystem: true }"))).toEqual([]);
  });

  test("a key that stands twice, and a kind that there is not", async () => {
    expect(() => parseManifests("a: 1\na: 2")).toThrow(/unique/);
    await expect(
      brokenBySchema(parseManifests("apiVersion: apps/v1\nkind: Deploiment\nmetadata: { name: x }")),
    ).rejects.toThrow();
  });
});

describe("a pod", () => {
  test("runs as the image's user, without any right, from files that it cannot write", async () => {
    expect(pod()?.securityContext).toMatchObject({
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      seccompProfile: { type: "RuntimeDefault" },
    });
    expect(container()?.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    });
    expect(pod()).toMatchObject({ automountServiceAccountToken: false, enableServiceLinks: false });
    const dockerfile = await readFile(join(FOLDER, "..", "realtime.Dockerfile"), "utf8");
    expect(dockerfile).toContain("\nUSER 65532:65532\n");
  });

  test("is told settings that a node takes, its name, and its secrets by files that it mounts", () => {
    const { env = [], envFrom, volumeMounts = [] } = container() ?? {};
    expect(envFrom).toEqual([{ configMapRef: { name: theOne<Manifest>("ConfigMap").metadata.name } }]);
    const name = env.find((variable) => variable.name === "NODE_NAME");
    expect(name?.valueFrom?.fieldRef?.fieldPath).toBe("metadata.name");
    const podName = `${deployment().metadata?.name}-5d59d67564-abcde`;
    const config = readConfig({ ...settings(), ...SECRETS, NODE_NAME: podName });
    expect(config.TRUSTED_PROXIES).toEqual(["10.0.0.0/8"]);
    const files = env.filter((variable) => variable.name.endsWith("_FILE")).map(({ value = "" }) => value);
    expect(env.filter((variable) => variable.name.endsWith("_FILE")).map((variable) => variable.name)).toEqual(
      Object.keys(SECRETS).map((secret) => `${secret}_FILE`),
    );
    for (const path of files) expect(path.startsWith(`${volumeMounts[0]?.mountPath}/`)).toBe(true);
    expect(pod()?.volumes?.[0]?.secret?.secretName).toBe("keycard-realtime");
  });

  test("has the time to send everybody elsewhere before it is ended", () => {
    const pause = container()?.lifecycle?.preStop?.sleep?.seconds ?? Number.NaN;
    const drain = readConfig({ ...settings(), ...SECRETS }).DRAIN_SECONDS;
    const { periodSeconds = 0, failureThreshold = 0 } = container()?.readinessProbe ?? {};
    // Long enough for whoever sends people here to have heard of it, and the whole with room to spare.
    expect(pause).toBeGreaterThanOrEqual(periodSeconds * failureThreshold);
    expect(pod()?.terminationGracePeriodSeconds).toBeGreaterThanOrEqual(pause + drain + 10);
  });

  test("is asked at paths that a node answers, and is not ended for not being ready", () => {
    const { startupProbe, readinessProbe, livenessProbe } = container() ?? {};
    expect(readinessProbe?.httpGet?.path).toBe("/readyz");
    expect(livenessProbe?.httpGet?.path).toBe("/healthz");
    expect(startupProbe?.httpGet?.path).toBe("/healthz");
    const ports = container()?.ports?.map(({ name }) => name);
    for (const probe of [startupProbe, readinessProbe, livenessProbe]) expect(ports).toContain(probe?.httpGet?.port);
    expect(readConfig({ ...settings(), ...SECRETS }).PORT).toBe(container()?.ports?.[0]?.containerPort);
  });

  test("is taken away only when another one is ready", () => {
    expect(deployment().spec?.strategy).toEqual({
      type: "RollingUpdate",
      rollingUpdate: { maxUnavailable: 0, maxSurge: 1 },
    });
    expect(deployment().spec?.replicas).toBeUndefined();
    expect(theOne<IHorizontalPodAutoscaler>("HorizontalPodAutoscaler").spec?.minReplicas).toBeGreaterThanOrEqual(3);
    expect(theOne<IPodDisruptionBudget>("PodDisruptionBudget").spec?.maxUnavailable).toBe(1);
  });

  test("is bounded in memory, asks for what it needs, and is of an image with a version", () => {
    expect(container()?.resources).toEqual({ requests: { cpu: "250m", memory: "256Mi" }, limits: { memory: "512Mi" } });
    expect(container()?.image).toMatch(/:\d+\.\d+\.\d+$/);
  });
});

describe("whatever names the pods", () => {
  test("names these", () => {
    const labels = deployment().spec?.template.metadata?.labels ?? {};
    const selectors = [
      deployment().spec?.selector.matchLabels,
      theOne<IService>("Service").spec?.selector,
      theOne<IPodDisruptionBudget>("PodDisruptionBudget").spec?.selector?.matchLabels,
      theOne<INetworkPolicy>("NetworkPolicy").spec?.podSelector?.matchLabels,
    ];
    for (const selector of selectors) {
      expect(Object.keys(selector ?? {}).length).toBeGreaterThan(0);
      expect(labels).toMatchObject(selector ?? {});
    }
    const target = theOne<IHorizontalPodAutoscaler>("HorizontalPodAutoscaler").spec?.scaleTargetRef;
    expect(target).toEqual({ apiVersion: "apps/v1", kind: "Deployment", name: deployment().metadata?.name });
  });
});

describe("from outside", () => {
  test("there is a way to what HAProxy lets through where it stands alone, and to nothing else", async () => {
    const paths = theOne<IIngress>("Ingress").spec?.rules?.flatMap((rule) => rule.http?.paths ?? []) ?? [];
    const config = await readFile(HAPROXY_CONFIG, "utf8");
    const prefix = /acl is_socket_io path_beg (\S+)/.exec(config)?.[1];
    const exact = /acl is_for_edge path (.+)/.exec(config)?.[1]?.split(" ") ?? [];
    expect(paths.map(({ path, pathType }) => [path, pathType])).toEqual([
      [prefix, "Prefix"],
      ...exact.map((path) => [path, "Exact"]),
    ]);
    const service = theOne<IService>("Service");
    for (const { backend } of paths) {
      expect(backend.service).toEqual({ name: service.metadata?.name, port: { name: service.spec?.ports?.[0]?.name } });
    }
  });

  test("a transport stays on its pod, for longer than Socket.IO is silent", () => {
    const annotations = theOne<IService>("Service").metadata?.annotations ?? {};
    expect(annotations).toMatchObject({
      "haproxy.org/cookie-persistence": "KEYCARD_NODE",
      "haproxy.org/check-http": "/readyz",
    });
    expect(Number.parseInt(annotations["haproxy.org/timeout-tunnel"] ?? "", 10)).toBeGreaterThan(45);
    expect(Number.parseInt(annotations["haproxy.org/timeout-server"] ?? "", 10)).toBeGreaterThan(25);
  });

  test("only the ingress controller and Prometheus get to a node, and a node gets to DNS, Redis and the edge", () => {
    const { ingress = [], egress = [], policyTypes } = theOne<INetworkPolicy>("NetworkPolicy").spec ?? {};
    expect(policyTypes).toEqual(["Ingress", "Egress"]);
    const namespaces = ingress.flatMap(({ from = [] }) =>
      from.map(({ namespaceSelector }) => namespaceSelector?.matchLabels),
    );
    expect(namespaces).toEqual([
      { "kubernetes.io/metadata.name": "haproxy-controller" },
      { "kubernetes.io/metadata.name": "monitoring" },
    ]);
    expect(egress.map(({ ports = [] }) => ports.map(({ port }) => port))).toEqual([[53, 53], [6379], [443]]);
    const internet = egress.at(-1)?.to?.[0]?.ipBlock;
    expect(internet?.except).toContain("169.254.0.0/16");
  });
});
