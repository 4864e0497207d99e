#include "../wattle/test/wattle_test.h"

static const char ROUTE[] = "{\"order_id\":\"o-1\",\"carrier\":\"swift-post\",\"name\":\"Z\\u00f6e\","
                            "\"country\":\"DE\",\"units\":2,\"grams\":3600}";

int main(void) {
  wattle_test("a label says who sends what to whom");
  const wattle_result *result = wattle_test_json(ROUTE);
  WATTLE_EXPECT(result->len == 1);
  WATTLE_EXPECT_TEXT(result->outputs[0].data,
      "swift-post  0-000001\nFrom: Wattle Shop, Elm Street 1\nTo:   Zöe, DE\nOrder o-1, 3.600 kg\n");
  WATTLE_EXPECT_TEXT(result->outputs[0].content_type, "text/plain; charset=utf-8");
  WATTLE_EXPECT_TEXT(result->outputs[0].attributes, "subject=0-000001\n");

  wattle_test("labels of a partition have different numbers");
  wattle_test_json(ROUTE);
  result = wattle_test_json(ROUTE);
  WATTLE_EXPECT_TEXT(result->outputs[0].attributes, "subject=0-000002\n");
  WATTLE_EXPECT_TEXT(wattle_test_state("printed"), "2");

  wattle_test("lines are cut in whole characters");
  wattle_test_config("width", "10");
  wattle_test_config("note", "ööööööööööö");
  result = wattle_test_json(ROUTE);
  WATTLE_EXPECT_TEXT(result->outputs[0].data, "swift-post\nFrom: Watt\nTo:   Zöe,\nOrder o-1,\nöööööööööö\n");

  wattle_test("what is no route is rejected with the path, and takes no number");
  result = wattle_test_json("{\"order_id\":\"o-1\",\"carrier\":\"swift-post\",\"name\":\"Ada\",\"country\":7}");
  WATTLE_EXPECT(result->rejected);
  WATTLE_EXPECT_TEXT(
      result->reason, "the data is not what this plugin reads: country is a number, and should be a text");
  WATTLE_EXPECT(wattle_test_state("printed").data == NULL);

  wattle_test("a width that does not fit tries the event again");
  wattle_test_config("width", "3");
  result = wattle_test_json(ROUTE);
  WATTLE_EXPECT(result->retried);
  WATTLE_EXPECT_TEXT(result->reason, "the setting `width` does not fit: it should be from 10 to 200");
  return wattle_test_end();
}
