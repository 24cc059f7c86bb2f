/* The five functions of libb64 that perf_analyzer links against: base64 (RFC 4648) as a stream, no line breaks.
 *
 * perf_analyzer uses them for CUDA memory handles and for base64 in its input files. The library is not on every
 * machine and no Python package carries it, so this stands in for it; the structures have the fields of its headers. */

typedef struct {
    int step;
    char result;
    int stepcount;
} encode_state;

typedef struct {
    int step;
    char plainchar;
} decode_state;

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_init_encodestate(encode_state *state) {
    state->step = 0;
    state->result = 0;
    state->stepcount = 0;
}

/* `result` holds the bits of the last byte that did not fill a character, `step` how many bytes into a triple we are. */
int base64_encode_block(const char *plain, int length, char *code, encode_state *state) {
    char *out = code;
    for (int i = 0; i < length; i++) {
        unsigned byte = (unsigned char)plain[i], left = (unsigned char)state->result;
        if (state->step == 0) {
            *out++ = ALPHABET[byte >> 2];
            state->result = (char)((byte & 3) << 4);
            state->step = 1;
        } else if (state->step == 1) {
            *out++ = ALPHABET[left | byte >> 4];
            state->result = (char)((byte & 15) << 2);
            state->step = 2;
        } else {
            *out++ = ALPHABET[left | byte >> 6];
            *out++ = ALPHABET[byte & 63];
            state->result = 0;
            state->step = 0;
        }
    }
    return (int)(out - code);
}

int base64_encode_blockend(char *code, encode_state *state) {
    char *out = code;
    if (state->step != 0) {
        *out++ = ALPHABET[(unsigned char)state->result];
        *out++ = '=';
        if (state->step == 1) *out++ = '=';
    }
    return (int)(out - code);
}

void base64_init_decodestate(decode_state *state) {
    state->step = 0;
    state->plainchar = 0;
}

static int value_of(char c) {
    for (int i = 0; i < 64; i++)
        if (ALPHABET[i] == c) return i;
    return -1;
}

int base64_decode_block(const char *code, int length, char *plain, decode_state *state) {
    char *out = plain;
    for (int i = 0; i < length; i++) {
        int bits = value_of(code[i]);
        if (bits < 0) continue; /* padding and white space */
        unsigned left = (unsigned char)state->plainchar;
        switch (state->step) {
            case 0: state->plainchar = (char)(bits << 2); break;
            case 1: *out++ = (char)(left | (unsigned)bits >> 4); state->plainchar = (char)(bits << 4); break;
            case 2: *out++ = (char)(left | (unsigned)bits >> 2); state->plainchar = (char)(bits << 6); break;
            default: *out++ = (char)(left | (unsigned)bits); state->plainchar = 0; break;
        }
        state->step = (state->step + 1) & 3;
    }
    return (int)(out - plain);
}
