/* A model that spells: after each byte comes the next one, after `z` the end token. Its logits fall
   with the distance from that choice. After `!` it writes the two bytes of an e with an acute accent. */
#include <stdint.h>

enum { VOCAB = 259, END = 257 };

struct step {
    uint64_t tokens, sequences, samples, block_table_stride;
    const int32_t *token_ids, *positions, *sample_rows, *slots, *sequence_starts, *block_tables;
    const void *weights;
    void *kv, *arena, *scratch;
    uint64_t scratch_stride;
    float *logits;
    const void *barrier, *barrier_state;
};

static int32_t next(int32_t token) {
    switch (token) {
    case 'z': return END;
    case '!': return 0xc3;
    case 0xc3: return 0xa9;
    case 0xa9: return 'x';
    case END: return 'a';
    default: return (token + 1) % VOCAB;
    }
}

static void step(const struct step *args, uint32_t thread, uint32_t threads) {
    for (uint64_t sample = thread; sample < args->samples; sample += threads) {
        int32_t choice = next(args->token_ids[args->sample_rows[sample]]);
        for (int32_t token = 0; token < VOCAB; token++) {
            int32_t distance = token < choice ? choice - token : token - choice;
            args->logits[sample * VOCAB + token] = (float)(8 - 2 * distance);
        }
    }
}

void llmc_decode(const struct step *args, uint32_t thread, uint32_t threads) { step(args, thread, threads); }
void llmc_prefill(const struct step *args, uint32_t thread, uint32_t threads) { step(args, thread, threads); }
