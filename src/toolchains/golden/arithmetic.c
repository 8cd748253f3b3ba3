/* Integers of all widths, division, shifts, switches, loops, calls: what code generation differs in first. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct pair {
	u8 small;
	u64 large;
	u16 bits : 5, more : 11;
};

volatile u32 port;
static const u16 table[] = { 1, 2, 4, 8, 16, 0xffff };
const char *const names[] = { "one", "two", "thr" "ee", __FILE__ };

u64 multiply(u32 a, u32 b, u64 c)
{
	return (u64)a * b + (c >> 3) - (c << (a & 31));
}

int divide(int a, int b, u64 *rest)
{
	*rest = *rest % 1000003u + (u64)(a % 7);
	return a / b + (u32)a / 10u;
}

static inline u32 rotate(u32 value, int by)
{
	return value << by | value >> (32 - by);
}

u32 hash(const u8 *data, u32 length)
{
	u32 state = 0x811c9dc5u;
	for (u32 i = 0; i < length; i++)
		state = rotate(state ^ data[i], 5) * 16777619u + table[i % 6];
	return state;
}

int choose(int what, struct pair *pair)
{
	switch (what) {
	case 0: return pair->small;
	case 1: return (int)pair->large;
	case 2: pair->bits = 3; return pair->more;
	case 3: port = pair->bits; return 7;
	case 4: return (int)hash(&pair->small, 16);
	case 7: return __builtin_clz((u32)what) + __builtin_popcountll(pair->large);
	default: return what > 100 ? choose(what - 100, pair) : -1;
	}
}

void copy(struct pair *to, const struct pair *from, int count)
{
	while (count-- > 0)
		*to++ = *from++;
}

int variadic(int count, ...)
{
	__builtin_va_list list;
	int sum = 0;
	__builtin_va_start(list, count);
	while (count--)
		sum += __builtin_va_arg(list, int);
	__builtin_va_end(list);
	return sum;
}

__attribute__((weak, section(".text.other"))) int weak_one(void)
{
	return variadic(3, 1, 2, __LINE__);
}
