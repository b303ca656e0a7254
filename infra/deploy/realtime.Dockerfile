# syntax=docker/dockerfile:1
# The realtime server as a container: Node, the server's own sources, and the packages that it imports. No shell, no npm, no compiler.
#
#   docker build -f infra/deploy/realtime.Dockerfile -t registry.example.com/keycard-realtime:1.0.0 .
#
# Bases are pinned by tag here. A tag can be moved: for a release, pin the digests that you have looked at, by building with
#   --build-arg NODE_IMAGE=node:24.21.0-bookworm-slim@sha256:… --build-arg BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot@sha256:…
# (`docker buildx imagetools inspect <image>` tells them), and deploy the image that comes of it by its digest as well.
#
# test/deploy/image.test.ts carries these steps out without an engine and runs what they make.
ARG NODE_IMAGE=node:24.21.0-bookworm-slim
ARG BASE_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${NODE_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund
# Types, maps, tests and documentation are for whoever writes code; licences stay.
RUN rm -rf node_modules/.bin node_modules/.package-lock.json node_modules/@types node_modules/undici-types \
  && find node_modules -type f \( -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.map' -o -name '*.md' -o -name '*.html' \
    -o -name 'test.js' -o -path '*/test/*' \) ! -iname 'licen[cs]e*' -delete \
  && find node_modules -type d -empty -delete
COPY LICENSE ./
COPY edge/contract/*.ts edge/contract/
COPY realtime/*.ts realtime/

FROM ${BASE_IMAGE}
COPY --from=build /usr/local/bin/node /usr/local/bin/node
COPY --from=build /app /app
WORKDIR /app
ENV NODE_ENV=production
USER 65532:65532
EXPOSE 3000
# The node drains at SIGTERM: it takes nobody new, sends everybody elsewhere, gives back its lease, and ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 CMD ["/usr/local/bin/node", "realtime/probe.ts", "/healthz"]
ENTRYPOINT ["/usr/local/bin/node", "realtime/main.ts"]
