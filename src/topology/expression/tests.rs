use super::*;

fn event<'e>(data: &'e [u8], attributes: &'e dyn ExtensionAttributes) -> EventFields<'e> {
    EventFields {
        id: "e-1",
        source: "/shop",
        kind: "order.created",
        subject: Some("order 7"),
        time: None,
        key: None,
        content_type: None,
        data,
        attributes,
    }
}

fn evaluate(expression: &str, data: &str) -> Result<String, ExpressionError> {
    let attributes = [("tenant", "acme"), ("region", "eu")];
    KeyExpression::compile(expression).unwrap().evaluate(&event(data.as_bytes(), &attributes))
}

/// The same path in a form that needs the evaluator.
fn by_evaluator(path: &str) -> String {
    format!("true ? {path} : ''")
}

fn is_fast(expression: &str) -> bool {
    !matches!(Expression::compile(expression).unwrap().form, Form::Program(_))
}

#[test]
fn plain_paths_need_no_evaluator() {
    for fast in ["data.order_id", " data.a.b.c ", "data[\"order-id\"].x", "id", "subject", "attributes.tenant"] {
        assert!(is_fast(fast), "{fast}");
    }
    for slow in ["data", "data.a + ''", "string(data.a)", "attributes.a.b", "id + id"] {
        assert!(!is_fast(slow), "{slow}");
    }
}

#[test]
fn paths_read_what_the_evaluator_reads() {
    let texts = [
        r#"{"a": {"b": "x"}}"#,
        r#"{"a": {"b": "x"}, "a": {"b": "y"}}"#,
        r#"{"a": {"b": "x"}, "a": {}}"#,
        r#"{"a": {"b": 17}}"#,
        r#"{"a": {"b": -17}}"#,
        r#"{"a": {"b": 18446744073709551615}}"#,
        r#"{"a": {"b": true}}"#,
        r#"{"a": {"b": "esc\u00e4ped\n\"x\""}}"#,
        r#"{"a": {"b": 1.5}}"#,
        r#"{"a": {"b": 1e3}}"#,
        r#"{"a": {"b": null}}"#,
        r#"{"a": {"b": []}}"#,
        r#"{"a": {"b": {}}}"#,
        r#"{"z": [1, {"a": 2}], "a": {"c": {"b": 3}, "b": "deep"}}"#,
    ];
    for text in texts {
        let (fast, slow) = (evaluate("data.a.b", text), evaluate(&by_evaluator("data.a.b"), text));
        match (fast, slow) {
            (Ok(fast), Ok(slow)) => assert_eq!(fast, slow, "{text}"),
            (Err(ExpressionError::NotText { found: fast, .. }), Err(ExpressionError::NotText { found: slow, .. })) => {
                assert_eq!(fast, slow, "{text}");
            }
            (Err(ExpressionError::Missing { .. }), Err(ExpressionError::Missing { .. })) => {}
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn results_are_texts() {
    assert_eq!(evaluate("data.id", r#"{"id": "o-1"}"#).as_deref(), Ok("o-1"));
    assert_eq!(evaluate("data.id", r#"{"id": 7}"#).as_deref(), Ok("7"));
    assert_eq!(evaluate("data.a + '/' + string(data.b)", r#"{"a": "x", "b": 7}"#).as_deref(), Ok("x/7"));
    assert_eq!(evaluate("data.items[0].sku", r#"{"items": [{"sku": "s"}]}"#).as_deref(), Ok("s"));
    assert_eq!(evaluate("data.n + 1", r#"{"n": 41}"#).as_deref(), Ok("42"));
    assert_eq!(evaluate("data.amount > 100", r#"{"amount": 101}"#).as_deref(), Ok("true"));
    assert_eq!(evaluate("id + source + type + subject", "").as_deref(), Ok("e-1/shoporder.createdorder 7"));
    assert_eq!(evaluate("attributes.tenant", "").as_deref(), Ok("acme"));
    assert_eq!(evaluate("attributes['tenant'] + attributes.region", "").as_deref(), Ok("acmeeu"));
    assert_eq!(evaluate("has(data.vip) ? 'vip' : subject", "{}").as_deref(), Ok("order 7"));
    assert_eq!(evaluate("time == null ? id : time", "").as_deref(), Ok("e-1"));
    assert_eq!(
        evaluate("data.items.exists(i, i.n > 1) ? 'many' : 'few'", r#"{"items": [{"n": 2}]}"#).as_deref(),
        Ok("many")
    );
}

#[test]
fn what_is_not_there_is_named() {
    let missing = |expression: &str, data: &str| match evaluate(expression, data) {
        Err(ExpressionError::Missing { path, .. }) => path,
        other => panic!("{expression}: {other:?}"),
    };
    assert_eq!(missing("data.order.id", r#"{"order": {}}"#), "data.order.id");
    assert_eq!(missing("data.order.id.x", r#"{"other": 1}"#), "data.order");
    assert_eq!(missing("data.order.id", r#"{"order": 5}"#), "data.order.id");
    assert_eq!(missing("data.order.id", "[]"), "data.order");
    assert_eq!(missing("time", ""), "time");
    assert_eq!(missing("attributes.nothing", ""), "attributes.nothing");
    assert_eq!(missing("data.order + 'x'", "{}"), "order");
    let error = evaluate("data.order.id", r#"{"order": {}}"#).unwrap_err();
    assert_eq!(error.to_string(), "this event has no `data.order.id`");
}

#[test]
fn data_that_is_not_json_is_refused() {
    let broken = |expression: &str| matches!(evaluate(expression, "{\"a\": "), Err(ExpressionError::BrokenJson { .. }));
    assert!(broken("data.a") && broken("data.a + ''"));
    assert!(matches!(evaluate("data.a", "{\"a\": 1} x"), Err(ExpressionError::BrokenJson { .. })));
    assert!(matches!(evaluate("data.a", ""), Err(ExpressionError::BrokenJson { .. })));
    let with_type = |content_type: &'static str| {
        let fields = EventFields { content_type: Some(content_type), ..event(br#"{"a": 1}"#, &NONE) };
        KeyExpression::compile("data.a").unwrap().evaluate(&fields)
    };
    for json in ["application/json", "Application/JSON; charset=utf-8", "application/vnd.order+json", "text/json"] {
        assert_eq!(with_type(json).as_deref(), Ok("1"), "{json}");
    }
    for other in ["text/plain", "application/xml", "application/jsonl"] {
        assert!(matches!(with_type(other), Err(ExpressionError::NotJson { .. })), "{other}");
    }
    // What does not look at the data does not care.
    assert_eq!(evaluate("id", "not json").as_deref(), Ok("e-1"));
    assert_eq!(evaluate("id + subject", "not json").as_deref(), Ok("e-1order 7"));
}

const NONE: [(&str, &str); 0] = [];

#[test]
fn mistakes_are_found_where_they_are() {
    let places = |text: &str| match KeyExpression::compile(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| text[error.range].to_owned()).collect(),
    };
    assert_eq!(places("order_id"), ["order_id"]);
    assert_eq!(places("data.x + order_id + nme"), ["order_id", "nme"]);
    assert_eq!(places("upper(data.x)"), ["upper"]);
    assert_eq!(places("data.x.upper()"), ["upper"]);
    assert_eq!(places("'ä' + order_id"), ["order_id"]);
    assert_eq!(places("data.x +"), [""]);
    assert_eq!(places("data.x ) + 1"), [")"]);
    assert_eq!(places("data.x\n  + order_id"), ["order_id"]);
    assert_eq!(places("data.items.all(i, i > j)"), ["j"]);
    assert_eq!(places("[1, 2].map(x, x * y)"), ["y"]);
    // The variable of a macro is not there outside of it.
    assert_eq!(places("data.items.all(i, i > 1) && i > 2"), ["i"]);
    for good in
        ["type(data.x) == string", "optional.none().hasValue()", "timestamp(time) > timestamp(data.t)", "-data.x"]
    {
        assert_eq!(places(good), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn hostile_expressions_are_refused_in_bounds() {
    for hostile in [
        "(".repeat(4_000),
        "[".repeat(4_000),
        "-".repeat(4_000),
        format!("{}1{}", "(".repeat(1_500), ")".repeat(1_500)),
        "1+".repeat(2_000) + "x",
        "x".repeat(1 << 20),
        "1+".repeat(2_000) + "1",
        "data".to_owned() + &".a".repeat(1_000) + " + id",
        "'".to_owned(),
        "\\".to_owned(),
        "a?".repeat(1_000),
    ] {
        assert!(KeyExpression::compile(&hostile).is_err(), "{}", &hostile[..hostile.len().min(20)]);
    }
}

fn holds(condition: &str, data: &str) -> Result<bool, ExpressionError> {
    let attributes = [("tenant", "acme"), ("region", "eu")];
    Condition::compile(condition).unwrap().evaluate(&event(data.as_bytes(), &attributes))
}

#[test]
fn conditions_are_true_or_false() {
    for (condition, data) in [
        ("data.vip", r#"{"vip": true}"#),
        ("!data.vip", r#"{"vip": false}"#),
        ("data.amount > 100", r#"{"amount": 101}"#),
        ("data.amount > 100", r#"{"amount": 100.5}"#),
        ("data.amount > 99.5", r#"{"amount": 100}"#),
        ("type == 'order.created' && attributes.tenant == 'acme'", ""),
        ("has(data.vip) && data.vip", r#"{"vip": true}"#),
        ("!has(data.vip) || data.vip", "{}"),
        ("!has(attributes.trace)", ""),
        ("time == null && subject != null", ""),
        ("'vip' in data.tags", r#"{"tags": ["new", "vip"]}"#),
        ("data.items.exists(i, i.n > 1)", r#"{"items": [{"n": 2}]}"#),
        ("data.items.exists_one(i, i.n > 1)", r#"{"items": [{"n": 2}]}"#),
        ("size(data.items.filter(i, i > 1)) == 1", r#"{"items": [1, 2]}"#),
        ("data.kind == 'a' ? data.x : data.y", r#"{"kind": "a", "x": true}"#),
        ("data.name.startsWith('A')", r#"{"name": "Ada"}"#),
        ("true", ""),
    ] {
        assert_eq!(holds(condition, data), Ok(true), "{condition}");
        assert_eq!(holds(&format!("!({condition})"), data), Ok(false), "{condition}");
    }
}

#[test]
fn what_a_condition_needs_has_to_be_there() {
    let missing = |condition: &str, data: &str| match holds(condition, data) {
        Err(ExpressionError::Missing { path, .. }) => path,
        other => panic!("{condition}: {other:?}"),
    };
    assert_eq!(missing("data.vip", "{}"), "data.vip");
    assert_eq!(missing("data.amount > 100", "{}"), "amount");
    assert_eq!(missing("attributes.trace == 'x'", ""), "trace");
    let found = |data: &str| match holds("data.vip", data) {
        Err(ExpressionError::NotBool { found, .. }) => found,
        other => panic!("{data}: {other:?}"),
    };
    assert_eq!(found(r#"{"vip": "true"}"#), "a text");
    assert_eq!(found(r#"{"vip": 1}"#), "a whole number");
    assert_eq!(found(r#"{"vip": null}"#), "null");
    assert_eq!(holds("data.a || data.b", r#"{"a": true}"#), Ok(true), "what decides alone is enough");
    assert!(matches!(holds("has(data.vip)", "no JSON"), Err(ExpressionError::BrokenJson { .. })));
    let error = holds("data.vip", r#"{"vip": 1}"#).unwrap_err();
    assert_eq!(error.to_string(), "`data.vip` is a whole number; `true` or `false` is needed");
}

#[test]
fn what_can_never_fit_is_found_where_it_is() {
    let places = |text: &str, compiled: Result<(), Vec<CompileError>>| match compiled {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| text[error.range].to_owned()).collect(),
    };
    let condition = |text: &str| places(text, Condition::compile(text).map(drop));
    assert_eq!(condition(" id "), ["id"]);
    assert_eq!(condition("attributes.vip"), ["attributes.vip"]);
    assert_eq!(condition("attributes"), ["attributes"]);
    assert_eq!(condition("'yes'"), ["'yes'"]);
    assert_eq!(condition("1 + 2"), ["1 + 2"]);
    assert_eq!(condition("data.a + data.b"), ["data.a + data.b"]);
    assert_eq!(condition("size(data.items)"), ["size(data.items)"]);
    assert_eq!(condition("data.items.filter(i, i > 1)"), ["data.items.filter(i, i > 1)"]);
    assert_eq!(condition("data.a && 'ä' && id"), ["'ä'", "id"]);
    assert_eq!(condition("!(data.x - 1)"), ["data.x - 1"]);
    assert_eq!(condition("data.a ? 'yes' : 0"), ["'yes'", "0"]);
    assert_eq!(condition("id ? true : false"), ["id"]);
    assert_eq!(condition("null"), ["null"]);
    assert_eq!(condition("[data.a]"), ["[data.a]"]);
    for good in ["data", "data.a", "data['a']", "data.a[0]", "data.items.all(id, id)", "false"] {
        assert_eq!(condition(good), Vec::<String>::new(), "{good}");
    }
    let key = |text: &str| places(text, KeyExpression::compile(text).map(drop));
    assert_eq!(key("attributes"), ["attributes"]);
    assert_eq!(key("[id]"), ["[id]"]);
    assert_eq!(key("1.5"), ["1.5"]);
    assert_eq!(key("data.a ? null : id"), ["null"]);
    assert_eq!(key("id && data.a"), ["id"]);
    for good in ["data", "data.a + 1", "-data.a", "data.a > 1", "data.a && data.b", "data.a ? id : 7"] {
        assert_eq!(key(good), Vec::<String>::new(), "{good}");
    }
}

#[test]
fn a_map_is_gone_through_in_the_order_of_its_keys_each_time() {
    let data = r#"{"one": 1, "two": {"b": 0.1, "a": 0.2, "c": 0.3}, "three": [{"z": 1, "y": 2, "x": 3}], "four": 4, "five": 5}"#;
    for (expression, expected) in [
        ("data.map(k, k)[0]", "five"),
        ("data.map(k, k)[4]", "two"),
        ("data.filter(k, k.startsWith('t'))[0]", "three"),
        ("data.two.map(k, string(data.two[k]))[1]", "0.1"),
        ("data.three.map(m, m.map(k, k)[0])[0]", "x"),
        ("{'q': 1, 'p': 2, 'o': 3}.map(k, k)[0]", "o"),
        ("{3: 'c', 1: 'a', 2: 'b'}.map(k, {3: 'c', 1: 'a', 2: 'b'}[k])[0]", "a"),
        ("data.map(k, k).map(k, k)[0]", "five"),
        ("[3, 1, 2].map(n, n)[0]", "3"),
        ("[data.map(k, k)[0]][0]", "five"),
        ("data.exists(k, k == 'one') ? data.map(k, k)[1] : ''", "four"),
    ] {
        for _ in 0..20 {
            assert_eq!(evaluate(expression, data).unwrap(), expected, "{expression}");
        }
    }
}

#[test]
fn an_expression_that_takes_too_long_is_left_after_the_same_steps_each_time() {
    let zeros = format!(r#"{{"a": [{}0], "s": "{}"}}"#, "0,".repeat(4_999), "x".repeat(500_000));
    for hostile in [
        "data.a.all(x, data.a.all(y, data.a.all(z, z == 0))) ? 'a' : 'b'",
        "data.a.all(x, data.a.exists(y, data.a.exists_one(z, z == 1))) || true ? 'a' : 'b'",
        "string(size(data.a.map(x, data.s + data.s)))",
        "string(size(data.a.map(x, data.a)))",
        "string(size(data.a.map(x, data.a.map(y, x + y))))",
        "string(size(data.a.filter(x, data.a.filter(y, y == 1) == [])))",
        "string(data.a.all(x, data.s == data.s + ''))",
        "string(data.a.all(x, data.s.contains('xxy') == false))",
        "string(data.a.all(x, data.s.matches('x*y') == false))",
        "string(data.a.all(x, data.s.matches(data.s + string(x)) == false))",
        "string(data.a.all(x, [data.s, data.s] != [data.a]))",
        "string(data.a.all(x, {'a': data.a} != {'a': data.s}))",
        "string(data.a.all(x, !('y' in data.a)))",
    ] {
        let budget = crate::topology::budget::of_data(zeros.len());
        let started = std::time::Instant::now();
        let error = evaluate(hostile, &zeros).unwrap_err();
        let too_many = ExpressionError::TooManySteps { expression: hostile.to_owned(), steps: budget };
        assert_eq!(error, too_many, "{hostile}");
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{hostile}: {:?}", started.elapsed());
    }
    let sums = ["data.s"; 40].join(" + ");
    assert!(matches!(evaluate(&sums, &zeros), Err(ExpressionError::TooManySteps { .. })));
    let copies = format!("string(size([{}]))", ["data"; 300].join(", "));
    assert!(matches!(evaluate(&copies, &zeros), Err(ExpressionError::TooManySteps { .. })));
}

#[test]
fn what_goes_through_a_list_once_has_room() {
    let items = vec![r#"{"qty": 1, "code": "AB-17"}"#; 10_000].join(",");
    let data = format!(r#"{{"items": [{items}]}}"#);
    for expression in [
        "data.items.all(i, i.qty > 0 && i.code.startsWith('AB') && i.code.matches('^[A-Z]+-[0-9]+$'))",
        "size(data.items.filter(i, i.qty == 1).map(i, i.code)) == 10000",
    ] {
        assert_eq!(holds(expression, &data), Ok(true), "{expression}");
    }
}

#[test]
fn data_is_looked_at_where_the_result_depends_on_it() {
    let with_text = |condition: &str| {
        let fields = EventFields { content_type: Some("text/plain"), ..event(b"no JSON", &NONE) };
        Condition::compile(condition).unwrap().evaluate(&fields)
    };
    assert_eq!(with_text("type == 'order.created' || data.n == 1"), Ok(true));
    assert_eq!(with_text("data.n == 1 || type == 'order.created'"), Ok(true));
    assert_eq!(with_text("type == 'other' && data.n == 1"), Ok(false));
    assert_eq!(with_text("data.n == 1 && type == 'other'"), Ok(false));
    assert_eq!(with_text("type == 'other' ? data.n == 1 : true"), Ok(true));
    for needed in ["data.n == 1 || type == 'other'", "type == 'order.created' && data.n == 1", "has(data.n)"] {
        assert!(matches!(with_text(needed), Err(ExpressionError::NotJson { .. })), "{needed}");
    }
    assert!(matches!(holds("data.n == 1 || type == 'other'", "{"), Err(ExpressionError::BrokenJson { .. })));
}

/// What is said of an expression that can be compiled: the part that is meant, and whether it always fails.
fn said(text: &str) -> Vec<(&str, bool)> {
    let lints = Expression::compile(text).unwrap().lints().into_iter();
    let part = |lint| match lint {
        Lint::Fails(error) => (&text[error.range], true),
        Lint::Odd(error) => (&text[error.range], false),
    };
    lints.map(part).collect()
}

#[test]
fn what_fails_for_each_event_is_found_without_one() {
    for (text, part) in [
        ("data.s.matches('(')", "'('"),
        ("data.a && 'x'.matches('[')", "'x'.matches('[')"),
        ("timestamp(time) > timestamp('yesterday')", "timestamp('yesterday')"),
        ("duration('5 minutes') < duration('1h')", "duration('5 minutes') < duration('1h')"),
        ("data.n == 1/0", "1/0"),
        ("data.n == 1 % 0", "1 % 0"),
        ("int('abc') == data.n", "int('abc')"),
        ("data.n == [1, 2][5]", "[1, 2][5]"),
        ("data.n == {'a': 1}['b']", "{'a': 1}['b']"),
        ("data.n == 1 + 'a'", "1 + 'a'"),
        ("data.n || 'a' < 1", "'a' < 1"),
        ("data.n == 9223372036854775807 + 1", "9223372036854775807 + 1"),
        ("data.l.exists(x, x == 1/0)", "1/0"),
        ("[1, 2].map(x, x + 'a') == data.l", "[1, 2].map(x, x + 'a')"),
        ("subject > 5", "subject > 5"),
        ("id < 3", "id < 3"),
        ("attributes.n >= 3", "attributes.n >= 3"),
        ("id + 5 == data.n", "id + 5"),
        ("size(data.l) + 'x' == id", "size(data.l) + 'x'"),
        ("id - 'x' == id", "id - 'x'"),
        ("id * 2 == 4", "id * 2"),
        ("timestamp(time) > '2026-01-01T00:00:00Z'", "timestamp(time) > '2026-01-01T00:00:00Z'"),
        ("timestamp(time) + 5 > timestamp(time)", "timestamp(time) + 5"),
        ("null < data.n", "null < data.n"),
        ("[data.a] < [data.b]", "[data.a] < [data.b]"),
        ("uint('-1') == data.n", "uint('-1')"),
        ("bytes('a') + 'b' == data.n", "bytes('a') + 'b'"),
        ("string(data.n).matches('a{1000}{1000}')", "'a{1000}{1000}'"),
    ] {
        assert_eq!(said(text).first(), Some(&(part, true)), "{text}: {:?}", said(text));
    }
}

#[test]
fn what_can_never_be_true_is_odd_and_what_can_is_not() {
    for (text, part) in [
        ("id == 5", "id == 5"),
        ("type != 1", "type != 1"),
        ("id == null", "id == null"),
        ("attributes.tenant == true", "attributes.tenant == true"),
        ("size(data.l) == '3'", "size(data.l) == '3'"),
        ("data.a && key == 5", "key == 5"),
        ("string(data.n) == 5", "string(data.n) == 5"),
        ("data.a.all(x, data.b.all(y, x == y))", "data.a.all(x, data.b.all(y, x == y))"),
    ] {
        assert_eq!(said(text), [(part, false)], "{text}");
    }
    for good in [
        "data.n == 5",
        "data.n + 5 == 7",
        "'a' + data.s == id",
        "subject == null && time != null && key != null",
        "true",
        "1 + 1 == 2",
        "data.l.all(x, x > 0) && data.m.all(x, x > 0)",
        "data.l.map(x, x + 1) == [1, 2]",
        "timestamp(time) - timestamp('2026-01-01T00:00:00Z') > duration('1h')",
        "timestamp(time) + duration('1h') > timestamp(data.t)",
        "data.n > 1.5 && size(data.l) > 1.5",
        "type(data.x) == string",
        "optional.none().hasValue() || optional.of(data.x).hasValue()",
        "data.s.matches('^[a-z]+$')",
        "data.s.matches(data.pattern)",
        "int(attributes.n) > 5",
        "has(data.vip) && data.vip",
        "attributes['n'] == '5'",
    ] {
        assert_eq!(said(good), [], "{good}");
    }
}
