/* Floating point, conversions, constants computed at compile time, vectors, thread-local and atomic access. */
typedef float four __attribute__((vector_size(16)));

static const double constants[] = { 1.0 / 3.0, 1e300 * 1e-299, 0x1.8p-1074, 3.14159265358979323846 };
__thread int mine;
static int shared;

double horner(double x, int degree)
{
	double value = 0;
	for (int i = 0; i < degree; i++)
		value = value * x + constants[i & 3];
	return value;
}

float narrow(double value, long long integer, unsigned short half)
{
	return (float)value + (float)integer - (float)half * 0.1f;
}

long long widen(float value)
{
	return (long long)(value * 1e6f) + (unsigned)value;
}

four add(four a, four b)
{
	return a * b + a;
}

_Complex double turn(_Complex double z)
{
	return z * z + 1.0;
}

int compare(double a, double b)
{
	return a < b ? -1 : a > b ? 1 : __builtin_isnan(a) ? 2 : 0;
}

int count(void)
{
	mine++;
	return __atomic_add_fetch(&shared, mine, __ATOMIC_SEQ_CST);
}
