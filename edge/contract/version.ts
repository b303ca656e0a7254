/** Which Keycard this is, for whoever asks an edge or a node what it runs. A test holds it against package.json. */
export const VERSION = "0.1.0";
