// Classes, virtual calls, templates, exceptions, initialisation at start: C++ without its library.
struct Shape {
	virtual ~Shape() {}
	virtual int area() const = 0;
	static int made;
};

int Shape::made = 3;

template <typename T, int N> struct Box : Shape {
	T side[N];
	explicit Box(T value)
	{
		for (T &one : side)
			one = value;
		++made;
	}
	int area() const override { return static_cast<int>(side[0]) * side[N - 1]; }
};

template struct Box<short, 4>;

struct Failure {
	int code;
};

static int order = Shape::made * 2;

int attempt(const Shape *shape, int limit)
{
	try {
		if (shape->area() > limit)
			throw Failure{shape->area()};
		Box<int, 3> box(limit);
		auto twice = [&box](int by) { return box.area() * by; };
		return twice(order);
	} catch (const Failure &failure) {
		return failure.code;
	}
}

namespace {
struct Late {
	Late() { Shape::made = 0; }
	~Late() { order = -1; }
} late;
}

bool is_circle(Shape *shape)
{
	return dynamic_cast<Box<short, 4> *>(shape) != nullptr;
}
