#include "../wattle/test/wattle_test.h"

int main() {
  wattle_test("a greeting names the visitor");
  wattle_test_config("word", "Welcome");
  const wattle_result *result = wattle_test_json("{\"name\":\"Ada\"}");
  WATTLE_EXPECT(result->len == 1);
  WATTLE_EXPECT_TEXT(result->outputs[0].data, "{\"text\":\"Welcome, Ada!\"}");

  wattle_test("a visitor without a name is rejected");
  result = wattle_test_json("{}");
  WATTLE_EXPECT(result->rejected);
  WATTLE_EXPECT_TEXT(result->reason, "the data is not what this plugin reads: name is missing");
  return wattle_test_end();
}
