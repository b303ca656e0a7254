/** Certificates for servers on the loopback, by an authority made for the occasion. */
import { execFile } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { findExecutable, installPackage } from "./packages.ts";

const run = promisify(execFile);

const PACKAGES = { apt: ["openssl"], apk: ["openssl"], dnf: ["openssl"], brew: ["openssl"] } as const;
const DAYS = "2";

/** Paths of PEM files. */
export interface Certificates {
  readonly ca: string;
  /** For whoever listens on the loopback, and for whoever has to show one there. */
  readonly cert: string;
  readonly key: string;
}

/** @throws {Error} when there is no openssl and none can be installed unattended */
export async function makeCertificates(dir: string): Promise<Certificates> {
  const openssl = await obtainOpenssl();
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const [ca, caKey, cert, key] = ["ca.pem", "ca.key", "cert.pem", "key.pem"].map((name) => join(dir, name)) as Paths;
  const [request, extensions] = [join(dir, "request.pem"), join(dir, "extensions")];
  await writeFile(extensions, "subjectAltName=IP:127.0.0.1,DNS:localhost\n");
  const fresh = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  const authority = ["-x509", "-days", DAYS, "-subj", "/CN=An authority of our own", "-keyout", caKey, "-out", ca];
  await run(openssl, ["req", ...fresh, ...authority]);
  await run(openssl, ["req", ...fresh, "-subj", "/CN=localhost", "-keyout", key, "-out", request]);
  const signer = ["-CA", ca, "-CAkey", caKey, "-CAcreateserial", "-days", DAYS, "-extfile", extensions];
  await run(openssl, ["x509", "-req", "-in", request, "-out", cert, ...signer]);
  return { ca, cert, key };
}

type Paths = [ca: string, caKey: string, cert: string, key: string];

/** The path of an openssl: one on this machine, or one installed by the system's package manager. */
export async function obtainOpenssl(onStep: (text: string) => void = () => {}): Promise<string> {
  const found = await findExecutable("openssl");
  if (found) return found;
  const installed = (await installPackage(PACKAGES, onStep)) ? await findExecutable("openssl") : undefined;
  if (installed === undefined) throw new Error("No openssl was found and none could be installed unattended.");
  return installed;
}
