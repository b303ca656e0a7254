/** What the clusters of the tests prove themselves with. South is changing its secret: its nodes still have the one of before. */
export const SECRETS = {
  north: "the secret that the nodes in the north have",
  south: "the secret that the nodes in the south have",
} as const;

/** The setting. */
export const CLUSTER_SECRETS = {
  north: SECRETS.north,
  south: ["the secret that the nodes in the south will have", SECRETS.south],
} as const;
