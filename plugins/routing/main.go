// Routing chooses the carrier of an order that may be shipped: by the country that it goes to and by its weight.
package main

import (
	"strconv"
	"strings"

	"wattle"
)

const routed wattle.Port = "routed"

// What the warehouse knows of carriers.
type settings struct {
	// The country of the warehouse.
	Home string `default:"DE"`
	// The carrier within the country.
	Domestic string `default:"swift-post"`
	// The carrier to other countries.
	Abroad string `default:"globe-express"`
	// The carrier of heavy orders.
	Freight string `default:"heavy-haul"`
	// The weight from which an order is heavy, in grams.
	FreightGrams uint64 `default:"30000"`
	// What a unit weighs, in grams, such as "lamp=1800 rug=4200".
	Weights string `default:"lamp=1800 rug=4200 gift-card=5"`
	// What a unit weighs that is not among the weights, in grams.
	UnitGrams uint64 `default:"500"`
}

type order struct {
	OrderID string `json:"order_id"`
	// Country is that of the address; without one the order stays in the country of the warehouse.
	Country  *string  `json:"country"`
	Customer customer `json:"customer"`
	Items    []item   `json:"items"`
}

type customer struct {
	Name    string  `json:"name"`
	Country *string `json:"country"`
}

type item struct {
	SKU string `json:"sku"`
	Qty uint32 `json:"qty"`
}

type route struct {
	OrderID string `json:"order_id"`
	Carrier string `json:"carrier"`
	Name    string `json:"name"`
	Country string `json:"country"`
	Units   uint64 `json:"units"`
	Grams   uint64 `json:"grams"`
}

func init() { wattle.Handle(handle, routed) }

func main() {}

func handle(event *wattle.Event, out *wattle.Outputs) error {
	config, err := wattle.Config[settings]()
	if err != nil {
		return err
	}
	var o order
	if err := event.JSON(&o); err != nil {
		return err
	}
	r := route{OrderID: o.OrderID, Name: o.Customer.Name, Country: country(o, config)}
	if r.Units, r.Grams, err = weigh(o.Items, config); err != nil {
		return err
	}
	r.Carrier = carrier(r, config)
	return out.JSON(routed, r, wattle.Type("order.routed"))
}

func country(o order, config *settings) string {
	for _, said := range []*string{o.Country, o.Customer.Country} {
		if said != nil {
			return strings.ToUpper(*said)
		}
	}
	return config.Home
}

func carrier(r route, config *settings) string {
	switch {
	case r.Grams >= config.FreightGrams:
		return config.Freight
	case r.Country == config.Home:
		return config.Domestic
	default:
		return config.Abroad
	}
}

// weigh gives the units of an order and their weight.
func weigh(items []item, config *settings) (units, grams uint64, err error) {
	known, err := weights(config.Weights)
	if err != nil {
		return 0, 0, err
	}
	for _, each := range items {
		of, isKnown := known[each.SKU]
		if !isKnown {
			of = config.UnitGrams
		}
		units += uint64(each.Qty)
		grams += uint64(each.Qty) * of
	}
	return units, grams, nil
}

// weights reads the setting of that name. A corrected topology makes it work, and so the event is tried again.
func weights(text string) (map[string]uint64, error) {
	known := map[string]uint64{}
	for pair := range strings.FieldsSeq(text) {
		sku, grams, _ := strings.Cut(pair, "=")
		number, err := strconv.ParseUint(grams, 10, 32)
		if err != nil {
			return nil, wattle.Retry("the setting `weights` does not fit: %q is not SKU=GRAMS", pair)
		}
		known[sku] = number
	}
	return known, nil
}
