/** The claims of a verified session token. */
export interface Session {
  /** The identity provider's own id of the user. */
  subject: string;
  /** When the token expires. */
  expiresAtMs: number;
  /** Null if the token has none, or has one that the provider says is not verified. */
  email: string | null;
  name: string | null;
}

/** People, as far as their sessions have told of them. Signing up is left to the identity provider. */
export interface Users {
  /**
   * Returns the id of the user that a session stands for, and creates the user when they are first seen; several first
   * requests at once create one user. A new address or name is written in the background: this does not wait for it, and a
   * write that fails is repeated with one of the user's next requests. An older token never brings an older address back.
   *
   * Throws `insufficient_storage` for a new user if the disk is nearly full.
   */
  findOrCreate(session: Session): Promise<string>;
}
