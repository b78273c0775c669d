// A model in the calling convention of compiled code (ir/src/abi.rs), simple enough to predict:
// the KV cache holds the token of each position, and the logits of a row are a bias (weight 0)
// plus 8 at the hash of all tokens up to that row, read through the block table.

#include <stdint.h>
#include <stddef.h>

enum { BLOCK_POSITIONS = 32, BLOCK_BYTES = 8192, VOCAB = 101, POISON = 99 };

struct args {
  uint64_t tokens, sequences, samples, block_table_stride;
  const int32_t *token_ids, *positions, *sample_rows, *slots, *sequence_starts, *block_tables;
  const uint8_t *const *weights;
  uint8_t *kv, *arena, *scratch;
  uint64_t scratch_stride;
  float *logits;
  void (*barrier)(const void *, uint32_t);
  const void *barrier_state;
};

static int32_t *slot(const struct args *a, int32_t block, int32_t offset) {
  return (int32_t *)(a->kv + (size_t)block * BLOCK_BYTES) + offset;
}

static void step(const struct args *a, uint32_t thread, uint32_t threads, float program) {
  uint32_t *mine = (uint32_t *)(a->scratch + thread * a->scratch_stride);
  uint32_t *sequence_of_row = (uint32_t *)a->arena;
  for (uint64_t row = thread; row < a->tokens; row += threads)
    *slot(a, a->slots[row] / BLOCK_POSITIONS, a->slots[row] % BLOCK_POSITIONS) = a->token_ids[row];
  for (uint64_t s = thread; s < a->sequences; s += threads)
    for (int32_t row = a->sequence_starts[s]; row < a->sequence_starts[s + 1]; row++)
      sequence_of_row[row] = (uint32_t)s;
  mine[0] = thread + 1;
  a->barrier(a->barrier_state, thread);
  uint32_t sum = 0;
  for (uint32_t t = 0; t < threads; t++)
    sum += *(uint32_t *)(a->scratch + t * a->scratch_stride);
  int wrong = sum != threads * (threads + 1) / 2;
  for (uint64_t sample = thread; sample < a->samples; sample += threads) {
    int32_t row = a->sample_rows[sample];
    const int32_t *table = a->block_tables + sequence_of_row[row] * a->block_table_stride;
    uint32_t hash = 7;
    int poisoned = wrong;
    for (int32_t position = 0; position <= a->positions[row]; position++) {
      int32_t token = *slot(a, table[position / BLOCK_POSITIONS], position % BLOCK_POSITIONS);
      hash = hash * 31 + (uint32_t)token;
      poisoned |= token == POISON;
    }
    float *logits = a->logits + sample * VOCAB;
    const float *bias = (const float *)a->weights[0];
    for (int v = 0; v < VOCAB; v++)
      logits[v] = poisoned ? __builtin_nanf("") : bias[v] + (v == (int)(hash % (VOCAB - 3)) ? 8.0f : 0.0f);
    if (!poisoned)
      logits[VOCAB - 1] = program;
  }
  for (int round = 0; round < 5; round++)
    a->barrier(a->barrier_state, thread);
}

void llmc_decode(const struct args *a, uint32_t thread, uint32_t threads) { step(a, thread, threads, -1.0f); }
void llmc_prefill(const struct args *a, uint32_t thread, uint32_t threads) { step(a, thread, threads, -2.0f); }
