/** Random choices that a seed repeats. */
export interface Random {
  /** A whole number from `min` to `max`, both included. */
  integer: (min: number, max: number) => number;
  /** Whether something happens that happens so often in a hundred times. */
  percent: (chance: number) => boolean;
  pick: <T>(items: readonly T[]) => T | undefined;
  /** Some of the items, up to `max`, in random order. */
  some: <T>(items: readonly T[], max: number) => T[];
  bytes: (length: number) => Buffer;
}

/** Mulberry32: small, and good enough to choose what a test does next. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  }

  const integer = (min: number, max: number) => min + Math.floor(next() * (max - min + 1));
  return {
    integer,
    percent: (chance) => next() * 100 < chance,
    pick: (items) => items[Math.floor(next() * items.length)],
    some(items, max) {
      const rest = [...items];
      const taken: (typeof rest)[number][] = [];
      while (taken.length < max && rest.length > 0) taken.push(...rest.splice(integer(0, rest.length - 1), 1));
      return taken;
    },
    bytes: (length) => Buffer.from(Array.from({ length }, () => integer(0, 255))),
  };
}

/** The seed of a random test: given by STOWAGE_TEST_SEED, else new; printed, so that a failure can be repeated. */
export function testSeed(diagnostic: (text: string) => void): number {
  const given = Number(process.env.STOWAGE_TEST_SEED);
  const seed = Number.isInteger(given) && given > 0 ? given : Math.floor(Math.random() * 2 ** 31) + 1;
  diagnostic(`STOWAGE_TEST_SEED=${seed}`);
  return seed;
}

/** A count that the environment may set. */
export function testCount(name: string, byDefault: number): number {
  const given = Number(process.env[name]);
  return Number.isInteger(given) && given > 0 ? given : byDefault;
}
